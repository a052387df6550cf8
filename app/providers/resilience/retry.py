"""Which failures are tried again, when, and how many in all."""

import random

from msgspec import Struct

from app.domain.errors import UpstreamError


class RetryPolicy(Struct, frozen=True):
    """How often, and after which pauses, a transient failure is tried again.

    Args:
        retries: Further tries after the first.
        first_pause: Seconds before the second try; doubled for each further one. The actual pause is random, between
            half of that and all of it.
        longest_pause: No pause is longer.
    """

    retries: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0

    def pause(self, error: UpstreamError, failed_tries: int) -> float | None:
        """Seconds to wait before another try, or None if there should be none.

        A failure with a `Retry-After` is passed on at once: the client knows best whether it can wait.
        """
        if not error.is_transient or error.retry_after is not None or failed_tries > self.retries:
            return None
        longest = min(self.longest_pause, self.first_pause * 2 ** (failed_tries - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret


class RetryBudget:
    """Keeps retries from multiplying the load in an outage.

    Every request pays in a fraction of a retry, every retry takes out a whole one. Brief trouble is retried as often as
    the policy says; lasting trouble adds no more than the fraction to the load.

    Args:
        fraction: Retries per request, in the long run.
        reserve: Retries that are available at the start, and the most that can be saved up.
    """

    def __init__(self, *, fraction: float, reserve: float) -> None:
        self._fraction = fraction
        self._reserve = reserve
        self._saved = reserve

    def pay_in(self) -> None:
        """Count a request."""
        self._saved = min(self._reserve, self._saved + self._fraction)

    def take_out(self) -> bool:
        """Take out one retry. Returns False if the budget is used up."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
