"""What bounds calls to an upstream: how many at once, how many again, and how long each may take."""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from msgspec import Struct

from app.domain.errors import GatewayOverloaded, UpstreamError, UpstreamTimeout
from app.domain.spans import Trace, no_trace
from app.domain.waits import OnWait, Waiting

T = TypeVar("T")

# How long clients that were turned away are asked to wait, in seconds.
_RETRY_AFTER = 5
# How often deadlines are looked at.
_CHECK_SECONDS = 0.1


class Bulkhead:
    """Hands out slots. Callers in the queue are served in turn, so that none can starve the others.

    Args:
        slots: The most concurrent calls.
        queue_size: The most calls that may wait.
        queue_timeout: Seconds that a call may wait.
        trace: Opens a span around the waiting.
    """

    def __init__(self, *, slots: int, queue_size: int, queue_timeout: float, trace: Trace = no_trace) -> None:
        self._slots = self._free = slots
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._trace = trace
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._queued = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._queued

    @property
    def free(self) -> int:
        """How many slots are free."""
        return self._free

    @property
    def is_idle(self) -> bool:
        """Whether no call has a slot, or waits for one."""
        return self._free == self._slots

    async def acquire(self, caller_id: str, *, at_most: float, on_wait: OnWait | None = None) -> None:
        """Take a slot, waiting for one if necessary. `release` must follow.

        Not a context manager, because that would make three calls of this one and `release`.

        Args:
            caller_id: Whose call it is, for fair shares.
            at_most: Seconds to wait; the queue's own limit may be shorter.
            on_wait: Told how long it had to wait.

        Raises:
            GatewayOverloaded: The queue is full, or the wait was too long.
        """
        if self._free:  # so nobody waits: `release` hands slots on before it frees them
            self._free -= 1
        else:
            await self._wait(caller_id, min(at_most, self._queue_timeout), on_wait)

    async def _wait(self, caller_id: str, seconds: float, on_wait: OnWait | None) -> None:
        if self._queued >= self._queue_size:
            raise GatewayOverloaded("Too many requests are waiting for the upstream.", retry_after=_RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller_id, deque()).append(turn)
        self._queued += 1
        try:
            with self._trace("queue"), Waiting("queue", on_wait):
                async with asyncio.timeout(seconds):
                    await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot came at the same moment: it goes to the next call
            else:
                self._leave_queue(caller_id, turn)
            if isinstance(error, TimeoutError):
                raise GatewayOverloaded(
                    "The request waited too long in the queue for the upstream.", retry_after=_RETRY_AFTER
                ) from error
            raise

    def _leave_queue(self, caller_id: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(caller_id)
        if turns is None or turn not in turns:
            return  # `release` has skipped it already
        turns.remove(turn)
        self._queued -= 1
        if not turns:
            del self._waiting[caller_id]

    def release(self) -> None:
        """Give a slot back. It goes to the next caller in turn."""
        while self._waiting:
            caller_id, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self._queued -= 1
            if turns:
                self._waiting[caller_id] = turns  # to the end: the other callers come first
            if not turn.done():  # a call that has just been cancelled is still in the queue
                turn.set_result(None)
                return
        self._free += 1


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


class _Waiting(Struct, eq=False):
    """A task that waits for an upstream, and until when."""

    task: asyncio.Task[object]
    until: float
    timed_out: bool = False


class Deadlines:
    """Ends calls after their deadline, within a tenth of a second.

    One timer checks all of them: a timer for each, as `asyncio.timeout` sets one, takes several times as long, and
    hardly any ever fires.
    """

    def __init__(self) -> None:
        self._waiting: set[_Waiting] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait_for(self, work: Awaitable[T], until: float) -> T:
        """The result of some work.

        Args:
            work: What the running task waits for. It is cancelled when its time is over.
            until: The deadline, in the event loop's time.

        Raises:
            UpstreamTimeout: The deadline has passed, or the work itself raised a TimeoutError.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("Only a task can be cancelled after a deadline.")
        waiting = _Waiting(task, until)
        cancelled_before = task.cancelling()
        self._waiting.add(waiting)
        if self._timer is None:
            self._timer = loop.call_later(_CHECK_SECONDS, self._check, loop)
        try:
            return await work
        except (TimeoutError, asyncio.CancelledError) as error:
            # Someone else's cancellation, the client's for one, takes precedence over ours.
            only_ours = waiting.timed_out and task.cancelling() == cancelled_before + 1
            if isinstance(error, asyncio.CancelledError) and not only_ours:
                raise
            raise UpstreamTimeout(
                "The upstream did not answer within the time limit.", reason="no answer in time"
            ) from error
        finally:
            self._waiting.discard(waiting)
            if waiting.timed_out:
                task.uncancel()

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for waiting in [one for one in self._waiting if one.until <= now]:
            self._waiting.discard(waiting)
            waiting.timed_out = True
            waiting.task.cancel()
        self._timer = loop.call_later(_CHECK_SECONDS, self._check, loop) if self._waiting else None


class SilenceLimit:
    """Cancels a task that has waited too long for the next part of a stream. For a `with` block around the reading.

    A timer looks in now and then: setting one for each part, of which there are hundreds a second, would cost more than
    the rest of the guard. Time in which nobody waits for a part doesn't count.

    Args:
        seconds: How long the stream may be silent; None for ever.

    Raises:
        UpstreamTimeout: On leaving, in place of the cancellation, and of a TimeoutError from within.
    """

    __slots__ = ("_loop", "_seconds", "_since", "_task", "_timed_out", "_timer")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._timed_out = False

    def listen(self) -> None:
        """The running task waits for the next part from now on."""
        self._task = asyncio.current_task(self._loop)
        self._since = self._loop.time()

    def heard(self) -> None:
        """The part has arrived."""
        self._task = None

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._check, self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # it refers back to this object
        task, self._task = self._task, None
        only_ours = self._timed_out and task is not None and task.uncancel() == 0
        if only_ours and isinstance(error, asyncio.CancelledError):
            raise UpstreamTimeout(
                f"The upstream sent nothing for {self._seconds:g} seconds.", reason="silence within a reply"
            ) from error
        if isinstance(error, TimeoutError):
            raise UpstreamTimeout("The upstream took too long in the middle of its answer.") from error

    def _check(self, seconds: float) -> None:
        now = self._loop.time()
        since = now if self._task is None else self._since
        if self._task is not None and now - since >= seconds:
            self._timed_out = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(since + seconds, self._check, seconds)
