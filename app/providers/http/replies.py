"""Replies: read whole or part by part, and fed by their connection."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from msgspec import Struct

from app.providers.http.decoding import Decoder, decoder_for
from app.providers.http.exceptions import HttpError, ReplyTooLong

# Bytes that may wait unread before the connection stops reading.
_MAX_UNREAD = 256 * 1024
_FINISH_SECONDS = 0.1
_MAX_RETRY_AFTER = 3600.0
_MAX_DATE_LENGTH = 64


class Headers(Mapping[str, str]):
    """Reply headers, decoded on access: of twenty hardly two are ever read.

    Args:
        raw: Values as they arrived, by names in lower case. Look them up in lower case, too.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def get(self, name: str, /, default: object = None) -> Any:
        # Mapping's own would raise and catch a KeyError for most lookups.
        value = self._raw.get(name.encode())
        return default if value is None else value.decode("latin-1")

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode()].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class HttpReply(Struct, frozen=True):
    """A whole reply. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FlowControl(Protocol):
    """Stops and restarts the source of a stream."""

    def pause_reading(self) -> None:
        """Read nothing for the time being."""

    def resume_reading(self) -> None:
        """Read on."""


class HttpStream:
    """A reply that is read while it arrives, by one task at a time.

    Like `asyncio.StreamReader` it has two sides: `feed_head`, `feed_data`, `feed_eof` and `fail` are for the
    connection, the rest is for the reader.

    Args:
        source: Paused while too much waits unread.
        max_reply_bytes: `whole` refuses a longer body.

    Attributes:
        status: The HTTP status; 0 until the head has arrived.
        headers: The headers, with names in lower case.
        set_cookies: The values of all `Set-Cookie` headers.
        ended: Nothing more will arrive, be the reply complete or not.
    """

    __slots__ = (
        "_decoder",
        "_failure",
        "_max_reply_bytes",
        "_max_unread",
        "_parts",
        "_source",
        "_unread",
        "_waiter",
        "ended",
        "headers",
        "set_cookies",
        "status",
    )

    def __init__(self, source: FlowControl, max_reply_bytes: int) -> None:
        self._source = source
        self._max_reply_bytes = max_reply_bytes
        self._max_unread = _MAX_UNREAD
        self._parts: list[bytes] = []
        self._unread = 0
        self._decoder: Decoder | None = None
        # The class, not an instance: that would refer to this stream by its traceback, and be left to the garbage
        # collector.
        self._failure: type[HttpError] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.set_cookies: Sequence[bytes] = ()
        self.ended = False

    def next_part(self) -> Coroutine[Any, Any, bytes]:
        """Return the next bytes of the body as soon as there are any; none at its end.

        Raises:
            ConnectionLost, ProtocolError: Raised after everything that arrived before has been read.
            DecodingError: The body can't be decompressed.
        """
        return self._next() if self._decoder is None else self._next_decoded(self._decoder)

    def hold_little(self, most: int) -> None:
        """Stop reading from the connection when so many bytes wait unread: for large replies that are passed on."""
        self._max_unread = most

    async def whole(self, ends: tuple[bytes, ...] = ()) -> HttpReply:
        """Read the reply to its end.

        Args:
            ends: Behind a part that ends like this nothing more is waited for: some servers leave the connection open.

        Raises:
            ReplyTooLong: The body is longer than `max_reply_bytes`.
            HttpError: As `next_part`.
        """
        parts: list[bytes] = []
        size = 0
        # Most bodies have arrived when they are read: taking them costs less than awaiting `next_part`.
        while part := self._take() if self._parts and self._decoder is None else await self.next_part():
            parts.append(part)
            size += len(part)
            if size > self._max_reply_bytes:
                raise ReplyTooLong(self._max_reply_bytes)
            if ends and part.endswith(ends):
                await self.finish()
                break
        return HttpReply(self.status, self.headers, b"".join(parts))

    async def finish(self) -> None:
        """Read the rest if it arrives at once, so that the connection can be reused. Raises nothing."""
        with contextlib.suppress(TimeoutError, HttpError):
            async with asyncio.timeout(_FINISH_SECONDS):
                while await self.next_part():
                    pass

    def wait(self) -> asyncio.Future[None]:
        """Return a future that is done once something more has arrived.

        Raises:
            ConnectionLost, ProtocolError: Nothing more will.
        """
        if self._failure is not None:
            raise self._failure
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    def feed_head(self, status: int, headers: Mapping[bytes, bytes], set_cookies: Sequence[bytes]) -> None:
        """Take the head in; header names are in lower case."""
        coding = headers.get(b"content-encoding")
        if coding is not None:
            self._decoder = decoder_for(coding)
        self.status, self.headers, self.set_cookies = status, Headers(headers), set_cookies
        # Tested here and below, because most parts find nobody waiting, and a call costs more than the test.
        if self._waiter is not None:
            self._wake(self._waiter)

    def feed_data(self, part: bytes) -> None:
        """Take a part of the body in."""
        self._parts.append(part)
        self._unread += len(part)
        if self._unread > self._max_unread:
            self._source.pause_reading()
        if self._waiter is not None:
            self._wake(self._waiter)

    def feed_eof(self) -> None:
        """Mark the reply as complete."""
        self.ended = True
        if self._waiter is not None:
            self._wake(self._waiter)

    def fail(self, failure: type[HttpError]) -> None:
        """Mark the reply as one that will never be complete."""
        self.ended, self._failure = True, failure
        if self._waiter is not None:
            self._wake(self._waiter)

    async def _next(self) -> bytes:
        while not self._parts:
            if self.ended and self._failure is None:
                return b""
            await self.wait()
        return self._take()

    async def _next_decoded(self, decoder: Decoder) -> bytes:
        part = decoder.take()
        if part:
            # A small part may hold many times as much: everybody else comes first.
            await asyncio.sleep(0)
        while not part:
            packed = await self._next()
            if not packed:
                decoder.finish()
                return b""
            decoder.feed(packed)
            part = decoder.take()
        return part

    def _take(self) -> bytes:
        """Everything that has arrived since the last call."""
        parts, self._parts = self._parts, []
        unread, self._unread = self._unread, 0
        if unread > self._max_unread:
            self._source.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = None
        if not waiter.done():  # the reader may have been cancelled
            waiter.set_result(None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, given as a number or a date; an hour at most, None without it."""
    value = headers.get("retry-after", "").strip()[:_MAX_DATE_LENGTH]
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait), _MAX_RETRY_AFTER)
