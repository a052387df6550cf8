"""An answer while it comes in: filled by its connection, emptied by whoever has asked."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from app.domain.errors import UnexpectedReply, UpstreamUnavailable

# So much may wait unread before the connection stops reading.
_MOST_UNREAD = 256 * 1024

Trouble = type[UpstreamUnavailable] | type[UnexpectedReply]


class Source(Protocol):
    """Where an answer comes from."""

    def pause(self) -> None:
        """Read no more for the time being."""

    def resume(self) -> None:
        """Read on."""


class Answer:
    """What has come of one answer. One task at a time reads it.

    `status` is 0 until the head is there; header names are in lower case. `ended` says that nothing more will come.
    """

    __slots__ = ("_parts", "_source", "_trouble", "_unread", "_waiter", "ended", "headers", "new_cookies", "status")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parts: list[bytes] = []
        self._unread = 0
        self._trouble: tuple[Trouble, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.new_cookies: Sequence[str] = ()
        self.ended = False

    def begin(self, status: int, headers: Mapping[str, str], new_cookies: Sequence[str]) -> None:
        """The head is there."""
        self.status, self.headers, self.new_cookies = status, headers, new_cookies
        self._wake()

    def add(self, part: bytes) -> None:
        """A part of the body is there."""
        self._parts.append(part)
        self._unread += len(part)
        if self._unread > _MOST_UNREAD:
            self._source.pause()
        self._wake()

    def end(self) -> None:
        """All of it is there."""
        self.ended = True
        self._wake()

    def fail(self, trouble: Trouble, message: str) -> None:
        """Nothing more will come, though something is missing; said to the reader after what has come."""
        self.ended, self._trouble = True, (trouble, message)
        self._wake()

    async def begun(self) -> None:
        """Wait for the head.

        Raises:
            UpstreamUnavailable: The connection was lost.
            UnexpectedReply: It is not valid HTTP.
        """
        while not self.status:
            self._check()
            await self._more()

    async def read(self) -> bytes:
        """What has come since the last time; waits if that is nothing. None at all at the end. Raises as `begun`."""
        while not self._parts:
            self._check()
            if self.ended:
                return b""
            await self._more()
        parts, self._parts = self._parts, []
        unread, self._unread = self._unread, 0
        if unread > _MOST_UNREAD:
            self._source.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self) -> None:
        if self._trouble is not None:
            kind, message = self._trouble
            raise kind(message)

    def _more(self) -> asyncio.Future[None]:
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():  # whoever has asked may have left
                waiter.set_result(None)
