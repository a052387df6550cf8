"""A client that stops reading, but does not leave, is waited for only so long."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Message, Send

from app.domain.errors import ClientClosedRequest


class cancel_on_stall:  # noqa: N801 - reads like asyncio.timeout, whose cousin it is
    """Cancels the code in the `async with` block when one of its writes is held up for too long.

    Raises `ClientClosedRequest` in place of the cancellation.

    A timer looks in now and then: nothing is set up for each write, of which there are thousands a second.

    Args:
        send: What writes.
        seconds: How long a write may take; it is cancelled after up to half as long again.
    """

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._every = seconds / 2
        self._writes = 0
        self._writing = False
        self._held_up = (0, 0)
        self._stalled = False

    async def send(self, message: Message) -> None:
        """To be used in place of the original."""
        self._writing = True
        await self._send(message)
        self._writing = False
        self._writes += 1

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("cancel_on_stall works in tasks only.")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._every, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._stalled and self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientClosedRequest("The client stopped reading.") from None

    def _look(self) -> None:
        write, times = self._held_up
        times = times + 1 if self._writing and write == self._writes else int(self._writing)
        self._held_up = (self._writes, times)
        # Seen the third time, the same write has taken two intervals at least.
        if times > 2:
            self._stalled = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(self._every, self._look)
