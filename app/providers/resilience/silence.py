"""How long a stream may be silent."""

import asyncio
from types import TracebackType
from typing import Self

from app.domain.errors import UpstreamTimeout


class Silence:
    """Cancels a task that has listened for too long to a stream that says nothing.

    To be used in a `with` block around the reading of the stream. A timer looks in now and then: none is set for each
    part, of which there are hundreds a second. The time in which nobody listens doesn't count.

    Args:
        seconds: How long the stream may be silent; None for ever.

    Raises:
        UpstreamTimeout: On leaving, in place of the cancellation, and of a TimeoutError from within.
    """

    __slots__ = ("_loop", "_seconds", "_since", "_task", "_timer", "_too_long")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._too_long = False

    def listen(self) -> None:
        """From now on the running task waits for the next part."""
        self._task = asyncio.current_task(self._loop)
        self._since = self._loop.time()

    def heard(self) -> None:
        """Here it is."""
        self._task = None

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._look, self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # it knows this object
        task, self._task = self._task, None
        cancelled = self._too_long and task is not None and task.uncancel() == 0
        if cancelled and isinstance(error, asyncio.CancelledError):
            raise UpstreamTimeout(
                f"The upstream fell silent in the middle of its answer, for {self._seconds:g} seconds."
            ) from error
        if isinstance(error, TimeoutError):
            raise UpstreamTimeout("The upstream took too long in the middle of its answer.") from error

    def _look(self, seconds: float) -> None:
        now = self._loop.time()
        since = now if self._task is None else self._since
        if self._task is not None and now - since >= seconds:
            self._too_long = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(since + seconds, self._look, seconds)
