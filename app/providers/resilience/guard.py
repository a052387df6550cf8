"""Everything that stands between a request and an upstream, in one call."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from app.domain.errors import UpstreamError, UpstreamRateLimited, UpstreamTimeout
from app.providers.resilience.breaker import CircuitBreaker
from app.providers.resilience.budget import RetryBudget
from app.providers.resilience.bulkhead import Bulkhead
from app.providers.resilience.pause import RequestedPause

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pause, a transient failure is tried again.

    Args:
        retries: Further tries after the first.
        first_pause: Seconds before the second try; doubled for each further one, each with full jitter.
        longest_pause: No pause is longer.
    """

    retries: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0

    def pause(self, error: UpstreamError, failed_tries: int) -> float | None:
        """Seconds to wait after the n-th failed try, or None if another makes no sense.

        A failure with a `Retry-After` is passed on to the client at once: it knows best whether it can wait.
        """
        if not error.is_transient or error.retry_after is not None or failed_tries > self.retries:
            return None
        longest = min(self.longest_pause, self.first_pause * 2 ** (failed_tries - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret


class Guard:
    """Runs calls to one upstream: in a slot of its bulkhead, past its breaker, with retries, within a deadline; none
    while the upstream has asked for a pause.

    Args:
        bulkhead: Bounds what is at the upstream at once.
        breaker: Leaves a failing upstream alone.
        retry: Which failures are tried again, and when.
        budget: Bounds all retries together.
        timeout: Seconds for everything together: queue, tries and pauses.
    """

    def __init__(
        self,
        *,
        bulkhead: Bulkhead,
        breaker: CircuitBreaker,
        retry: RetryPolicy,
        budget: RetryBudget,
        timeout: float,
    ) -> None:
        self.bulkhead = bulkhead
        self.breaker = breaker
        self.pause = RequestedPause()
        self._retry = retry
        self._budget = budget
        self._timeout = timeout

    async def run(self, attempt: Callable[[], Awaitable[T]], *, caller_id: str) -> T:
        """The result of `attempt`, which is called again after transient failures.

        Raises:
            UpstreamError: The last failure, or `BreakerOpen`, or `UpstreamTimeout`; or a refusal that still holds.
            GatewayOverloaded: No slot came free.
        """
        self.breaker.check()
        self.pause.check()
        self._budget.pay_in()
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with self.bulkhead.slot(caller_id, at_most=self._timeout):
            return await self._with_retries(attempt, deadline)

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        failed_tries = 0
        while True:
            try:
                return await self._once(attempt, deadline)
            except UpstreamError as error:
                failed_tries += 1
                pause = self._retry.pause(error, failed_tries)
                if pause is None or asyncio.get_running_loop().time() + pause >= deadline:
                    raise
                if not self._budget.take_out():
                    raise
            await asyncio.sleep(pause)

    async def _once(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        self.pause.check()
        with self.breaker.call():
            try:
                async with asyncio.timeout_at(deadline):
                    return await attempt()
            except UpstreamRateLimited as refusal:
                self.pause.note(refusal)
                raise
            except TimeoutError as error:
                raise UpstreamTimeout(f"The upstream didn't answer within {self._timeout:g} seconds.") from error
