"""Keeps this worker's book of limits, and what models cost, as the database has them."""

import time
from collections.abc import Mapping

from app.domain.chat import Usage
from app.domain.granting import Scope
from app.limits.book import LimitBook
from app.storage.database import Connection
from app.storage.limits import CHANGED, stored_limits
from app.storage.prices import PRICES_CHANGED, Prices


class LimitFollower:
    """Follows what changes in the database. See `Follower`.

    Args:
        book: Takes in the limits.
    """

    def __init__(self, book: LimitBook) -> None:
        self._book = book
        self._prices = Prices([])

    def cost(self, provider: str, model: str, usage: Usage) -> int:
        """What was used costs now, in nano-dollars; 0 where no price is known."""
        return self._prices.cost(
            provider,
            model,
            at=time.time_ns() // 1_000_000,
            tokens_in=usage.prompt_tokens,
            cached=usage.cached_tokens,
            tokens_out=usage.completion_tokens,
            cache_written=usage.cache_written_tokens,
            unit=usage.unit,
            amount=usage.amount,
        )

    def read(self, connection: Connection, changed: frozenset[str] | None) -> tuple[Mapping[Scope, str], Prices] | None:
        """See `Follower`."""
        if changed is not None and changed.isdisjoint((CHANGED, PRICES_CHANGED)):
            return None
        return stored_limits(connection), Prices.read(connection)

    def take(
        self,
        changed: frozenset[str] | None,  # noqa: ARG002 - a Follower's
        found: tuple[Mapping[Scope, str], Prices] | None,
    ) -> None:
        """See `Follower`."""
        if found is not None:
            limits, self._prices = found
            self._book.set_stored(limits)

    def away(self, seconds: float) -> None:
        """See `Follower`: what was read last holds on."""
