"""Everything between a request and an upstream, in one call."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from app.domain.errors import UpstreamError
from app.providers.resilience.breaker import CircuitBreaker, RequestedPause
from app.providers.resilience.bulkhead import Bulkhead
from app.providers.resilience.retry import RetryBudget, RetryPolicy
from app.providers.resilience.timeouts import Deadlines, SilenceLimit

T = TypeVar("T")


class Guard:
    """Makes calls to one upstream: in a slot of its bulkhead, past its breaker, with retries and a deadline, and none
    while the upstream has asked for a pause.

    Args:
        bulkhead: Limits concurrent calls.
        breaker: Stops calls to a failing upstream.
        retry: Which failures are tried again, and when.
        budget: Limits all retries together.
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
        self.timeout = timeout
        self._deadlines = Deadlines()
        self._retry = retry
        self._budget = budget
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
            caller_id: Whose call it is, for fair shares.
            deadline: An earlier end than the guard's own timeout gives, in the event loop's time.
            retries: False makes the first failure final.

        Raises:
            UpstreamError: The last failure; `BreakerOpen`, `UpstreamTimeout`, or a rate limit that still holds.
            GatewayOverloaded: No slot came free.
        """
        until, seconds = self._admit(deadline)
        await self.bulkhead.acquire(caller_id, at_most=seconds)
        try:
            failed_tries = 0
            while True:
                try:
                    with self.pause, self.breaker.call():
                        return await self._deadlines.wait_for(attempt(), until)
                except UpstreamError as error:
                    failed_tries += 1
                    wait = self._wait_after(error, failed_tries, until) if retries else None
                    if wait is None:
                        raise
                await asyncio.sleep(wait)
        finally:
            self.bulkhead.release()

    async def stream(
        self,
        attempt: Callable[[], AsyncGenerator[T, None]],
        *,
        caller_id: str,
        deadline: float | None = None,
        retries: bool = True,
    ) -> AsyncGenerator[T, None]:
        """The parts that `attempt` yields; it is called again after transient failures before the first part.

        The slot is held until the last part. Closing this generator closes the attempt's.

        Args:
            attempt: One try.
            caller_id: Whose call it is, for fair shares.
            deadline: An earlier end of the wait for the first part, in the event loop's time.
            retries: False makes the first failure final.

        Raises:
            UpstreamError: As `run`, or the stream broke off or fell silent.
            GatewayOverloaded: No slot came free.
        """
        until, seconds = self._admit(deadline)
        await self.bulkhead.acquire(caller_id, at_most=seconds)
        try:
            first, rest, call = await self._begin(attempt, until, retries=retries)
            async with call:
                if first is None:
                    return
                yield first
                with SilenceLimit(self._idle_timeout) as silence:
                    silence.listen()
                    async for part in rest:
                        silence.heard()
                        yield part
                        silence.listen()
        finally:
            self.bulkhead.release()

    async def _begin(
        self, attempt: Callable[[], AsyncGenerator[T, None]], until: float, *, retries: bool
    ) -> tuple[T | None, AsyncGenerator[T, None], AsyncExitStack]:
        """The first part, None if there is none; the rest; and what closes them and tells the breaker how it ended."""
        failed_tries = 0
        while True:
            try:
                async with AsyncExitStack() as stack:
                    stack.enter_context(self.pause)
                    call = stack.enter_context(self.breaker.call())
                    rest = await stack.enter_async_context(aclosing(attempt()))
                    first = await self._deadlines.wait_for(anext(rest, None), until)
                    call.answered()
                    return first, rest, stack.pop_all()
            except UpstreamError as error:
                failed_tries += 1
                wait = self._wait_after(error, failed_tries, until) if retries else None
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    def _admit(self, deadline: float | None) -> tuple[float, float]:
        """Refuse a call that could not be made now; else its deadline, and how many seconds that is from now."""
        self.breaker.check()
        self.pause.check()
        self._budget.pay_in()
        now = asyncio.get_running_loop().time()
        seconds = self.timeout if deadline is None else min(deadline - now, self.timeout)
        return now + seconds, seconds

    def _wait_after(self, error: UpstreamError, failed_tries: int, until: float) -> float | None:
        """Seconds to wait before the next try, taken out of the budget; None if there is to be none."""
        wait = self._retry.pause(error, failed_tries)
        if wait is None or asyncio.get_running_loop().time() + wait >= until or not self._budget.take_out():
            return None
        return wait
