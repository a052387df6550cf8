"""Deadlines of many calls, kept by one timer."""

import asyncio
from types import TracebackType

from app.domain.errors import UpstreamTimeout

_LOOK_SECONDS = 0.1


class Deadlines:
    """Ends the calls whose time is over: within a tenth of a second after it, as often as one looks.

    A timer for each call, as `asyncio.timeout` sets one, takes several times as long, and hardly any ever goes off.
    """

    def __init__(self) -> None:
        self._kept: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def until(self, when: float) -> "Deadline":
        """A deadline in the event loop's time, for a `with` block."""
        return Deadline(self, when)

    def keep(self, deadline: "Deadline", loop: asyncio.AbstractEventLoop) -> None:
        """Look after a deadline until `drop`."""
        self._kept.add(deadline)
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop)

    def drop(self, deadline: "Deadline") -> None:
        """It no longer counts."""
        self._kept.discard(deadline)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        passed = [deadline for deadline in self._kept if deadline.when <= now]
        for deadline in passed:
            self._kept.discard(deadline)
            deadline.passes()
        self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop) if self._kept else None


class Deadline:
    """Cancels what runs in the `with` block when its time is over.

    Raises:
        UpstreamTimeout: In place of the cancellation, and of a TimeoutError from within.
    """

    __slots__ = ("_cancellations", "_deadlines", "_has_passed", "_task", "when")

    def __init__(self, deadlines: Deadlines, when: float) -> None:
        self._deadlines = deadlines
        self._has_passed = False
        self._task: asyncio.Task[object] | None = None
        self._cancellations = 0
        self.when = when

    def passes(self) -> None:
        """Its time is over."""
        if self._task is not None:
            self._has_passed = True
            self._task.cancel()

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = self._task = asyncio.current_task(loop)
        self._cancellations = task.cancelling() if task is not None else 0
        self._deadlines.keep(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.drop(self)
        task, self._task = self._task, None
        cancelled = self._has_passed and task is not None and task.uncancel() <= self._cancellations
        if isinstance(error, TimeoutError) or (cancelled and isinstance(error, asyncio.CancelledError)):
            raise UpstreamTimeout("The upstream didn't answer within the time that a request may take.") from error
