"""How limits stand, as bars, and what others would have refused."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from app.api.console.services import ConsoleServices
from app.domain.granting import LimitState, Scope, ScopedLimit
from app.domain.limits import Limit, amount_in_words, read_limits, texts_of
from app.limits.overview import LimitUse, limits_of
from app.limits.refusals import in_words
from app.limits.replay import Replay
from app.limits.trial import STRETCH
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.limits import states_of, stored_limits
from app.storage.prices import Prices
from app.storage.usage import DAY

_DAYS_TRIED = 7
# Somebody waits for the page.
_LONGEST_SECONDS = 8.0
STRETCH_MINUTES = STRETCH // 60_000


class LimitBar(Struct, frozen=True):
    """A limit as pages show it; amounts are in words.

    Args:
        share: How much of it is used, of 100.
        reset: When all of it is free again, in words; empty if no time brings that about, or it is free.
        workers: What each worker holds of it.
        lacks_prices: Whether it counts dollars, and nothing has a price.
    """

    scope: Scope
    text: str
    used: str
    amount: str
    free: str
    share: float
    reset: str
    workers: tuple[str, ...]
    lacks_prices: bool


class Standing(Struct, frozen=True):
    """Limits as the database knows them.

    Args:
        stored: The limits that were set, by scope.
        texts: All that hold, those of the settings too, by scope.
        lacks_prices: Whether one of them counts dollars, and nothing has a price.
    """

    stored: dict[Scope, str]
    texts: dict[Scope, str]
    limits: list[ScopedLimit]
    states: list[LimitState]
    lacks_prices: bool


class Tried(Struct, frozen=True):
    """What limits would have refused.

    Args:
        limits: They themselves, as people write them.
        worst: When most would have been refused, in the time zone of quotas; empty if none would.
        refused_then: Calls that limits had refused; nobody knows what they would have used.
        is_partial: Whether a part of the time is missing: its rows were deleted, or reading took too long.
        fault: Why nothing was tried; empty if it was.
    """

    limits: str
    days: int = _DAYS_TRIED
    calls: int = 0
    refused: int = 0
    worst: str = ""
    worst_count: int = 0
    refused_then: int = 0
    is_partial: bool = False
    by_limit: tuple[tuple[str, int], ...] = ()
    fault: str = ""


def read_standing(services: ConsoleServices, connection: Connection, scopes: Sequence[Scope]) -> Standing:
    """Look how limits stand. `bars` makes of it what pages show."""
    stored, book = stored_limits(connection), services.admin.new_book()
    book.set_stored(stored)
    limits = limits_of(book, scopes, time.time(), services.admin.zone)
    texts = {scope: texts_of(found) for scope in scopes if (found := book.of(scope))}
    counts_dollars = any(one.limit.measure == "dollars" for one in limits)
    lacks_prices = counts_dollars and Prices.read(connection).is_empty
    return Standing(stored, texts, limits, states_of(services.admin.database, connection, limits), lacks_prices)


def bars(services: ConsoleServices, standing: Standing) -> dict[Scope, list[LimitBar]]:
    """The bars of each scope that has limits."""
    found: dict[Scope, list[LimitBar]] = {}
    uses = services.overview.uses(standing.limits, standing.states)
    for use, state in zip(uses, standing.states, strict=True):
        lacks_prices = standing.lacks_prices and use.limit.measure == "dollars"
        found.setdefault(use.scope, []).append(_bar(use, state, lacks_prices=lacks_prices))
    return found


async def try_limits(services: ConsoleServices, scope: Scope, text: str) -> Tried:
    """Put the calls of the last days through limits."""
    try:
        limits = read_limits(text)
    except ValueError as error:
        return Tried(text[:200], fault=str(error))
    database, until = services.admin.database, now()
    admin, since = services.admin, until - _DAYS_TRIED * DAY
    replay = await database.report(
        lambda connection: Replay(
            connection, scope, limits, admin.zone, admin.wait, since=since, until=until, seconds=_LONGEST_SECONDS
        )
    )
    while not await database.report(replay.go_on):
        pass
    return _tried(services, limits, replay)


def scopes_of_key(key_id: str, project: str) -> tuple[Scope, ...]:
    """All whose limits hold for a key's calls."""
    return Scope("key", key_id), Scope("project", project), Scope("gateway")


def grouped(found: dict[Scope, list[LimitBar]], scopes: Iterable[Scope]) -> list[LimitBar]:
    """The bars of several scopes, one after the other."""
    return [bar for scope in scopes for bar in found.get(scope, ())]


def _tried(services: ConsoleServices, limits: tuple[Limit, ...], replay: Replay) -> Tried:
    trial, worst, count = replay.trial, "", 0
    if trial.by_time:
        at, count = max(trial.by_time.items(), key=lambda item: (item[1], -item[0]))
        worst = datetime.fromtimestamp(at / 1000, services.admin.zone).strftime("%Y-%m-%d %H:%M")
    return Tried(
        texts_of(limits),
        calls=trial.calls,
        refused=trial.refused,
        worst=worst,
        worst_count=count,
        refused_then=replay.refused_before,
        is_partial=replay.stopped_at is not None or replay.deleted_until is not None,
        by_limit=tuple([(limit.text, trial.by_limit[limit]) for limit in limits]) if len(limits) > 1 else (),
    )


def _bar(use: LimitUse, state: LimitState, *, lacks_prices: bool) -> LimitBar:
    limit = use.limit
    return LimitBar(
        scope=use.scope,
        text=limit.text,
        used=_amount(use.used, limit),
        amount=_amount(limit.amount, limit),
        free=_amount(use.remaining, limit),
        share=round(min(100 * use.used / limit.amount, 100), 1),
        reset=in_words(use.reset) if use.reset and use.used else "",
        workers=tuple([_amount(holding.held, limit) for holding in state.holdings if holding.held]),
        lacks_prices=lacks_prices,
    )


def _amount(amount: int, limit: Limit) -> str:
    return amount_in_words(amount, "dollars") if limit.measure == "dollars" else f"{amount:,}"
