"""A response that goes out bit by bit, without a task's help as long as the client reads."""

import asyncio
from collections.abc import Generator
from typing import Any

from starlette.types import Message, Send

from app.domain.errors import ClientClosedRequest


class ResponseWriter:
    """Writes one response.

    Servers take a part of a body at once as long as the client reads, though their `send` might wait. So each write is
    begun by hand, which any code can do; only one that has to wait is left to a task, and to a clock.

    Args:
        send: ASGI's.
        timeout: Seconds that a write may have to wait for the client.
    """

    def __init__(self, send: Send, timeout: float) -> None:
        self._send = send
        self._timeout = timeout
        # Has something been begun that isn't done?
        self.is_waiting = False

    async def start(self, message: Message) -> None:
        """Write the message that begins the response.

        Raises:
            ClientClosedRequest: The client has read nothing for too long.
        """
        if not self.begin_message(message):
            await self.finish()

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Write a part of the body, however long it takes, after what has been begun before.

        Raises:
            ClientClosedRequest: The client has read nothing for too long.
        """
        if self.is_waiting:
            await self.finish()
        if not self.begin(body, more=more):
            await self.finish()

    def begin(self, body: bytes, *, more: bool = True) -> bool:
        """Write a part of the body. Is it done? If not, `finish` has to come before anything else."""
        return self.begin_message({"type": "http.response.body", "body": body, "more_body": more})

    def begin_message(self, message: Message) -> bool:
        """The same for any message."""
        steps = self._send(message).__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            return True
        self._rest = _Rest(waits_for, steps)
        self.is_waiting = True
        return False

    async def finish(self) -> None:
        """Wait for what has been begun, if it isn't done.

        Raises:
            ClientClosedRequest: The client has read nothing for too long.
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
    """What is left of an awaitable that was begun by hand, to be awaited by a task.

    Args:
        waits_for: What its first step gave: what the event loop is to wait for.
        steps: The further ones.
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
                except BaseException as error:  # noqa: BLE001 - a cancellation, above all: it is for what waits here
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = next(self._steps)
        except StopIteration:
            return
