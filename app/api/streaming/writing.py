"""Writing a response in parts, without the help of a task as long as the client reads."""

import asyncio
from collections.abc import Generator
from typing import Any

from starlette.types import Message, Send

from app.domain.errors import ClientClosedRequest


class ResponseWriter:
    """Writes one response.

    A server's `send` rarely waits: only while the client doesn't read. So each write is begun by stepping its coroutine
    by hand, which any code can do, such as the timer that types out all streams. Only a write that has to wait needs a
    task and a time limit. A task for each stream would cost twice as much per piece.

    Args:
        send: ASGI's.
        timeout: Seconds that a write may wait for the client.
    """

    def __init__(self, send: Send, timeout: float) -> None:
        self._send = send
        self._timeout = timeout
        # Whether a write has begun that is not done.
        self.is_waiting = False

    async def start(self, message: Message) -> None:
        """Write the message that begins the response.

        Raises:
            ClientClosedRequest: The client has stopped reading.
        """
        if not self.begin_message(message):
            await self.finish()

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Write a part of the body, after what was begun before, and wait until it is written.

        Raises:
            ClientClosedRequest: The client has stopped reading.
        """
        if self.is_waiting:
            await self.finish()
        if not self.begin(body, more=more):
            await self.finish()

    def begin(self, body: bytes, *, more: bool = True) -> bool:
        """Begin to write a part of the body. Returns whether it is done; if not, `finish` must come next."""
        return self.begin_message({"type": "http.response.body", "body": body, "more_body": more})

    def begin_message(self, message: Message) -> bool:
        """Begin to write any message; see `begin`."""
        steps = self._send(message).__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            return True
        self._rest = _Rest(waits_for, steps)
        self.is_waiting = True
        return False

    async def finish(self) -> None:
        """Wait until what was begun is done.

        Raises:
            ClientClosedRequest: The client has stopped reading.
        """
        if not self.is_waiting:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._rest
        except TimeoutError:
            raise ClientClosedRequest("The client stopped reading.") from None
        finally:
            self.is_waiting = False
            del self._rest


class _Rest:
    """The rest of a coroutine that was begun by hand, for a task to await.

    Args:
        waits_for: What its first step yielded, for the event loop to wait for.
        steps: Its further steps.
    """

    def __init__(self, waits_for: object, steps: Generator[Any, Any, None]) -> None:
        self._waits_for = waits_for
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:  # noqa: BLE001 - mostly a cancellation, which belongs to the coroutine
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = next(self._steps)
        except StopIteration:
            return
