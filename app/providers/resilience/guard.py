"""Everything that stands between a request and an upstream, in one call."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from msgspec import Struct

from app.domain.errors import UpstreamError
from app.providers.resilience.breaker import CircuitBreaker
from app.providers.resilience.budget import RetryBudget
from app.providers.resilience.bulkhead import Bulkhead
from app.providers.resilience.deadlines import Deadlines
from app.providers.resilience.pause import RequestedPause
from app.providers.resilience.silence import Silence

T = TypeVar("T")


class RetryPolicy(Struct, frozen=True):
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
        timeout: Seconds for queue, tries and pauses together, up to the whole answer or the first part of a stream.
        idle_timeout: Seconds that a stream may be silent after its first part; None for ever.
    """

    def __init__(
        self,
        *,
        bulkhead: Bulkhead,
        breaker: CircuitBreaker,
        retry: RetryPolicy,
        budget: RetryBudget,
        timeout: float,
        idle_timeout: float | None = None,
    ) -> None:
        self.bulkhead = bulkhead
        self.breaker = breaker
        self.pause = RequestedPause()
        self._deadlines = Deadlines()
        self._retry = retry
        self._budget = budget
        self.timeout = timeout
        self._idle_timeout = idle_timeout

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        caller_id: str,
        deadline: float | None = None,
        retries: bool = True,
    ) -> T:
        """The result of `attempt`, which is called again after transient failures.

        Args:
            attempt: One try.
            caller_id: Whose it is, for fair shares.
            deadline: An earlier end than the guard's own timeout gives, in the event loop's time.
            retries: False makes the first failure the last.

        Raises:
            UpstreamError: The last failure, or `BreakerOpen`, or `UpstreamTimeout`; or a refusal that still holds.
            GatewayOverloaded: No slot came free.
        """
        until, at_most = self._time(deadline)
        async with self.bulkhead.slot(caller_id, at_most=at_most):
            return await self._with_retries(lambda: self._once(attempt, until), until, retries=retries)

    async def stream(
        self,
        attempt: Callable[[], AsyncGenerator[T, None]],
        *,
        caller_id: str,
        deadline: float | None = None,
        retries: bool = True,
    ) -> AsyncGenerator[T, None]:
        """The parts that `attempt` gives, which is called again after transient failures before the first part.

        The slot is held until the last part. Closing this closes what `attempt` gave.

        Args:
            attempt: One try.
            caller_id: Whose it is, for fair shares.
            deadline: By when the first part must be there, if that is before the guard's own timeout ends.
            retries: False makes the first failure the last.

        Raises:
            UpstreamError: As `run`, or when the stream breaks off or falls silent.
            GatewayOverloaded: No slot came free.
        """
        until, at_most = self._time(deadline)
        async with self.bulkhead.slot(caller_id, at_most=at_most), AsyncExitStack() as stack:
            first, rest = await self._with_retries(lambda: self._begin(attempt, stack, until), until, retries=retries)
            if first is None:
                return
            yield first
            with Silence(self._idle_timeout) as silence:
                silence.listen()
                async for part in rest:
                    silence.heard()
                    yield part
                    silence.listen()

    def _time(self, deadline: float | None) -> tuple[float, float]:
        """By when the answer must be there, and how many seconds that is from now; for a call that may be made."""
        self.breaker.check()
        self.pause.check()
        self._budget.pay_in()
        now = asyncio.get_running_loop().time()
        seconds = self.timeout if deadline is None else min(deadline - now, self.timeout)
        return now + seconds, seconds

    async def _with_retries(self, once: Callable[[], Awaitable[T]], deadline: float, *, retries: bool) -> T:
        failed_tries = 0
        while True:
            try:
                return await once()
            except UpstreamError as error:
                failed_tries += 1
                pause = self._retry.pause(error, failed_tries) if retries else None
                if pause is None or asyncio.get_running_loop().time() + pause >= deadline:
                    raise
                if not self._budget.take_out():
                    raise
            await asyncio.sleep(pause)

    async def _once(self, attempt: Callable[[], Awaitable[T]], until: float) -> T:
        with self.pause, self.breaker.call(), self._deadlines.until(until):
            return await attempt()

    async def _begin(
        self, attempt: Callable[[], AsyncGenerator[T, None]], outer: AsyncExitStack, until: float
    ) -> tuple[T | None, AsyncGenerator[T, None]]:
        """One try up to its first part, if there is one, and the rest of them.

        From then on `outer` closes it and tells the breaker how it ended.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self.pause)
            call = stack.enter_context(self.breaker.call())
            rest = await stack.enter_async_context(aclosing(attempt()))
            with self._deadlines.until(until):
                first = await anext(rest, None)
            call.begun()
            await outer.enter_async_context(stack.pop_all())
            return first, rest
