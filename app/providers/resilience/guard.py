"""Everything between a request and an upstream, in one call."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from app.domain.errors import UpstreamError
from app.domain.waits import OnWait
from app.providers.resilience.breaker import LONGEST_PAUSE, BreakerPolicy, CircuitBreaker, RequestedPause
from app.providers.resilience.limits import Bulkhead, Deadlines, RetryBudget, RetryPolicy, SilenceLimit

T = TypeVar("T")


# Of so many models an upstream's limits and failures are kept in mind. Clients may make names up.
_MOST_MODELS = 256


class Lane(Struct, frozen=True):
    """What stops calls for one model of an upstream, or for all that are not told apart."""

    breaker: CircuitBreaker
    pause: RequestedPause

    @property
    def is_free(self) -> bool:
        """Whether there is nothing to remember: nothing stops calls, and none has failed lately."""
        return not self.pause.seconds and not self.breaker.has_failures


class Guard:
    """Makes calls to one upstream: in a slot of its bulkhead, past its breakers, with retries and a deadline, and none
    while the upstream has asked for a pause.

    Each model has a pause and a breaker of its own, because upstreams limit models apart, and one may fail alone. A
    failure that concerns all of them (no connection, say) counts for the whole upstream. Callers that don't name their
    model share the upstream's own pause and breaker.

    Args:
        bulkhead: Limits concurrent calls.
        breaker: When calls to what keeps failing are stopped.
        retry: Which failures are tried again, and when.
        budget: Limits all retries together.
        timeout: Seconds for queue, tries and pauses together, up to the whole answer or the first part of a stream.
        idle_timeout: Seconds that a stream may be silent after its first part; None for ever.
        longest_pause: Seconds; no pause that the upstream asks for is longer.
        name: The upstream's, for the log.
        clock: Replaced by tests that let time pass.
    """

    def __init__(
        self,
        *,
        bulkhead: Bulkhead,
        breaker: BreakerPolicy,
        retry: RetryPolicy,
        budget: RetryBudget,
        timeout: float,
        idle_timeout: float | None = None,
        longest_pause: float = LONGEST_PAUSE,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bulkhead = bulkhead
        self._name = name
        self.breaker = CircuitBreaker(breaker, clock, on_failure=self._warn)
        self.pause = RequestedPause(clock, longest_pause)
        self.timeout = timeout
        self._deadlines = Deadlines()
        self._breaker_policy = breaker
        self._retry = retry
        self._budget = budget
        self._idle_timeout = idle_timeout
        self._longest_pause = longest_pause
        self.clock = clock
        self._lanes = {"": Lane(self.breaker, self.pause)}

    def stopped_models(self) -> frozenset[str]:
        """The models that are not asked now, because of an open breaker of their own."""
        return frozenset([model for model, lane in self._lanes.items() if model and lane.breaker.state == "open"])

    def all_closed(self) -> bool:
        """Whether all breakers, of the upstream and of its models, let all requests through."""
        return all(lane.breaker.state == "closed" for lane in self._lanes.values())

    def failure_reason(self) -> str:
        """Why calls have failed lately, in a few words: what concerns all models first. Empty if none has failed."""
        return next(filter(None, [lane.breaker.failure_reason for lane in self._lanes.values()]), "")

    def pauses(self) -> list[float]:
        """The seconds that are left of each pause that lasts."""
        return [seconds for lane in self._lanes.values() if (seconds := lane.pause.seconds)]

    def new_breaker(self, share: int) -> CircuitBreaker:
        """A breaker with the upstream's policy, for a part of it that calls can do without.

        Args:
            share: The part is asked so many times less often: so many times fewer calls are enough to judge it.
        """
        policy = self._breaker_policy
        return CircuitBreaker(replace(policy, minimum_calls=max(policy.minimum_calls // share, 1)), self.clock)

    def new_pause(self) -> RequestedPause:
        """A pause with the upstream's bounds."""
        return RequestedPause(self.clock, self._longest_pause)

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        caller_id: str,
        model: str = "",
        deadline: float | None = None,
        retries: bool = True,
        on_wait: OnWait | None = None,
    ) -> T:
        """The result of `attempt`, which is called again after transient failures.

        Args:
            attempt: One try.
            caller_id: Whose call it is, for fair shares.
            model: The upstream's name for the model that is asked; empty if models are not told apart.
            deadline: An earlier end than the guard's own timeout gives, in the event loop's time.
            retries: False makes the first failure final.
            on_wait: Told how long the call waited for a slot.

        Raises:
            UpstreamError: The last failure; `BreakerOpen`, `UpstreamTimeout`, or a rate limit that still holds.
            GatewayOverloaded: No slot came free.
        """
        lane = self._lanes.get(model) or self._new_lane(model)
        until, seconds = self._admit(lane, deadline)
        await self.bulkhead.acquire(caller_id, at_most=seconds, on_wait=on_wait)
        try:
            failed_tries = 0
            while True:
                try:
                    with lane.pause, lane.breaker.call():
                        return await self._deadlines.wait_for(attempt(), until)
                except UpstreamError as error:
                    failed_tries += 1
                    error.was_sent = error.was_sent or failed_tries > 1
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
        model: str = "",
        deadline: float | None = None,
        retries: bool = True,
        on_wait: OnWait | None = None,
    ) -> AsyncGenerator[T, None]:
        """The parts that `attempt` yields; it is called again after transient failures before the first part.

        The slot is held until the last part. Closing this generator closes the attempt's.

        Args:
            attempt: One try.
            caller_id: Whose call it is, for fair shares.
            model: The upstream's name for the model that is asked; empty if models are not told apart.
            deadline: An earlier end of the wait for the first part, in the event loop's time.
            retries: False makes the first failure final.
            on_wait: Told how long the call waited for a slot.

        Raises:
            UpstreamError: As `run`, or the stream broke off or fell silent.
            GatewayOverloaded: No slot came free.
        """
        lane = self._lanes.get(model) or self._new_lane(model)
        until, seconds = self._admit(lane, deadline)
        await self.bulkhead.acquire(caller_id, at_most=seconds, on_wait=on_wait)
        try:
            first, rest, call = await self._begin(lane, attempt, until, retries=retries)
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
        self, lane: Lane, attempt: Callable[[], AsyncGenerator[T, None]], until: float, *, retries: bool
    ) -> tuple[T | None, AsyncGenerator[T, None], AsyncExitStack]:
        """The first part, None if there is none; the rest; and what closes them and tells the breaker how it ended."""
        failed_tries = 0
        while True:
            try:
                async with AsyncExitStack() as stack:
                    stack.enter_context(lane.pause)
                    call = stack.enter_context(lane.breaker.call())
                    rest = await stack.enter_async_context(aclosing(attempt()))
                    first = await self._deadlines.wait_for(anext(rest, None), until)
                    call.answered()
                    return first, rest, stack.pop_all()
            except UpstreamError as error:
                failed_tries += 1
                error.was_sent = error.was_sent or failed_tries > 1
                wait = self._wait_after(error, failed_tries, until) if retries else None
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    def _new_lane(self, model: str) -> Lane:
        """A lane for a model that is asked for the first time; of too many the most dispensable one goes."""
        if len(self._lanes) > _MOST_MODELS:
            names = [name for name in self._lanes if name]
            del self._lanes[next((name for name in names if self._lanes[name].is_free), names[0])]
        lane = self._lanes[model] = Lane(
            CircuitBreaker(self._breaker_policy, self.clock, self.breaker, self._warn), self.new_pause()
        )
        return lane

    def _admit(self, lane: Lane, deadline: float | None) -> tuple[float, float]:
        """Refuse a call that could not be made now; else its deadline, and how many seconds that is from now."""
        lane.breaker.check()
        lane.pause.check()
        self._budget.pay_in()
        now = asyncio.get_running_loop().time()
        seconds = self.timeout if deadline is None else min(deadline - now, self.timeout)
        return now + seconds, seconds

    def _warn(self, failure: UpstreamError) -> None:
        """Once for each reason, until the upstream works again: requests have lines of their own."""
        structlog.get_logger("kimi.upstream").warning(
            "upstream.failing",
            upstream=self._name,
            error=failure.code or failure.type,
            reason=failure.reason or None,
            server=failure.server or None,
        )

    def _wait_after(self, error: UpstreamError, failed_tries: int, until: float) -> float | None:
        """Seconds to wait before the next try, taken out of the budget; None if there is to be none."""
        wait = self._retry.pause(error, failed_tries)
        if wait is None or asyncio.get_running_loop().time() + wait >= until or not self._budget.take_out():
            return None
        return wait
