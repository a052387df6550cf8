"""Responses that are opened as late as possible, and kept open while there is nothing to write."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Message

from app.api.dialects import EventEncoder
from app.api.streaming.writing import ResponseWriter


class LateResponse:
    """A response that is opened by its first write, or when its grace time ends. Use it in a `with` block.

    A timer opens it and sends pings, so the task that waits for something to write is not disturbed. The timer checks
    now and then instead of being set anew by each write, which would cost more than the write.

    Args:
        writer: Writes the response.
        begin: Makes the message that begins the response, and the encoder.
        grace: Seconds after which a response that is `ready` is opened anyway. A failure before has its true status.
        heartbeat: Seconds without a write after which a ping is sent.
        on_ping: Called for each ping.
    """

    def __init__(
        self,
        writer: ResponseWriter,
        begin: Callable[[], tuple[Message, EventEncoder]],
        *,
        grace: float,
        heartbeat: float,
        on_ping: Callable[[], None],
    ) -> None:
        self.writer = writer
        # None as long as nothing has been written.
        self.encoder: EventEncoder | None = None
        self._begin = begin
        self._heartbeat = heartbeat
        self._on_ping = on_ping
        self._loop = asyncio.get_running_loop()
        self._grace_ends = self._loop.time() + grace
        self._written = 0.0
        self._unsent = b""
        # The last part of the body. It waits for the response's end, so that both are one write.
        self.last = b""
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # it knows this object

    def ready(self) -> None:
        """Allow the timer to open it."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._grace_ends, self._break_silence)

    async def open(self) -> EventEncoder:
        """Begin the response if it has not begun.

        Raises:
            ClientClosedRequest: The client has stopped reading.
        """
        if self.encoder is None:
            message, encoder = self._opened()
            self._keep_open()
            await self.writer.start(message)
            return encoder
        return self.encoder

    async def write(self, body: bytes) -> None:
        """Write a part of the body of an open response. Raises as `open`."""
        if self._unsent:
            body, self._unsent = self._unsent + body, b""
        if body:
            self._written = self._loop.time()
            await self.writer.write(body)

    def end_with(self, body: bytes) -> None:
        """Let a part of the body be the last one."""
        self.last, self._unsent = self._unsent + body, b""

    def _opened(self) -> tuple[Message, EventEncoder]:
        message, self.encoder = self._begin()
        self._unsent = self.encoder.opening()
        return message, self.encoder

    def _keep_open(self) -> None:
        """Check again when the next ping would be due."""
        if self._timer is not None:
            self._timer.cancel()
        self._written = self._loop.time()
        self._timer = self._loop.call_at(self._written + self._heartbeat, self._look)

    def _look(self) -> None:
        due = self._written + self._heartbeat
        if due <= self._loop.time():
            self._break_silence()
        else:
            self._timer = self._loop.call_at(due, self._look)

    def _break_silence(self) -> None:
        self._keep_open()
        if self.writer.is_waiting:
            return  # a client that doesn't read needs no ping
        encoder = self.encoder
        if encoder is None:
            message, encoder = self._opened()
            if not self.writer.begin_message(message):
                return
        self._on_ping()
        self.writer.begin(self._unsent + encoder.ping)
        self._unsent = b""
