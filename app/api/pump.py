"""A generator that is run ahead of whoever reads it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from app.chat.events import Event
from app.domain.errors import InternalError

# How far the upstream's side may run ahead of a slow reader, in events. Enough that a whole reply and its ending never
# wait; little enough that a stream nobody reads takes no memory.
_AHEAD = 32


class Pump:
    """Runs a call's events in a task of its own, a bounded number of them ahead of its one reader.

    So the call goes on, and the turn is remembered, while its text is still being typed out; and waiting for the next
    event can be interrupted for a heartbeat without disturbing the call.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._unread: deque[Event | Exception] = deque()
        # What the reader waits for: true when there is something to read, false when its time is over.
        self._arrival: asyncio.Future[bool] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What the task waits for when it is too far ahead.
        self._room: asyncio.Future[None] | None = None
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._task.done():
            self._is_leaving = True
            self._task.cancel()
            await asyncio.wait([self._task])

    async def next(self, deadline: float | None) -> Event:
        """The next event, or the exception that came instead of it; TimeoutError if neither comes by the deadline.

        Args:
            deadline: In the event loop's time; None waits for ever.
        """
        if not self._unread:
            await self._wait(deadline)
        event = self._unread.popleft()
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
        if isinstance(event, Exception):
            try:
                raise event
            finally:
                del event  # it leads to this frame: they would keep each other alive
        return event

    async def _wait(self, deadline: float | None) -> None:
        self._arrival = self._loop.create_future()
        self._deadline = deadline
        self._watch_the_time()
        try:
            if not await self._arrival:
                raise TimeoutError
        finally:
            self._arrival = None

    def _watch_the_time(self) -> None:
        """One timer serves many waits: it looks by itself whether there is a later deadline by then."""
        if self._deadline is None or (self._timer is not None and self._timer.when() <= self._deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_time, self._deadline)

    def _look_at_the_time(self, due: float) -> None:
        self._timer = None
        if self._arrival is None or self._arrival.done():
            return
        if self._deadline == due:
            self._arrival.set_result(False)
        else:
            self._watch_the_time()

    async def _run(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._hand_over(event)
                    if len(self._unread) >= _AHEAD:
                        self._room = self._loop.create_future()
                        await self._room
            # Nobody waits for this after an ending.
            self._hand_over(InternalError("The answer ended without saying so."))
        except asyncio.CancelledError:
            if self._is_leaving:
                raise
            self._hand_over(InternalError("The answer was given up by the gateway."))
        except Exception as error:  # noqa: BLE001 - it is raised where the events are read
            self._hand_over(error)

    def _hand_over(self, event: Event | Exception) -> None:
        self._unread.append(event)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(True)
