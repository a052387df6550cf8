"""Time limits: until the first part of an answer, and for the silence between two."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from msgspec import Struct

from app.domain.errors import UpstreamTimeout

T = TypeVar("T")

_CHECK_SECONDS = 0.1


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
            raise UpstreamTimeout("The upstream did not answer within the time limit.") from error
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
            raise UpstreamTimeout(f"The upstream sent nothing for {self._seconds:g} seconds.") from error
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
