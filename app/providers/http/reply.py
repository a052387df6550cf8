"""Answers, and what is read off their headers."""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct

from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.providers.http.answer import Answer
from app.providers.http.decoding import Decoder, decoder_for

_LONGEST_WAIT = 3600.0
_LONGEST_DATE = 64
_FINISH_SECONDS = 0.1


class HttpReply(Struct, frozen=True):
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpStream:
    """An answer that is read part by part. Header names are in lower case.

    Args:
        answer: What comes in; its head is there already.
        max_reply_bytes: `whole` refuses a longer one.
    """

    __slots__ = ("_answer", "_decoder", "_max_reply_bytes", "headers", "status")

    def __init__(self, answer: Answer, max_reply_bytes: int) -> None:
        self._answer = answer
        self._max_reply_bytes = max_reply_bytes
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._decoder = decoder_for(answer.headers)

    def next_part(self) -> Coroutine[Any, Any, bytes]:
        """The next bytes as they come in; none at all at the end.

        Raises:
            UpstreamUnavailable: The connection was lost.
            UnexpectedReply: They are not valid HTTP, or can't be unpacked.
        """
        decoder = self._decoder
        return self._answer.read() if decoder is None else self._unpacked(decoder)

    async def whole(self) -> HttpReply:
        """The answer, read to its end.

        Raises:
            UpstreamUnavailable: The connection was lost.
            UnexpectedReply: The answer is too long, not valid HTTP, or can't be unpacked.
        """
        parts: list[bytes] = []
        size = 0
        while part := await self.next_part():
            parts.append(part)
            size += len(part)
            if size > self._max_reply_bytes:
                raise UnexpectedReply(f"The upstream's answer is longer than {self._max_reply_bytes} bytes.")
        return HttpReply(self.status, self.headers, b"".join(parts))

    async def finish(self) -> None:
        """Read the end, if it comes at once: then the connection can be used again."""
        with contextlib.suppress(TimeoutError, UpstreamUnavailable, UnexpectedReply):
            async with asyncio.timeout(_FINISH_SECONDS):
                while await self.next_part():
                    pass

    async def _unpacked(self, decoder: Decoder) -> bytes:
        while not (part := decoder.take()):
            packed = await self._answer.read()
            if not packed:
                decoder.finish()
                return b""
            decoder.feed(packed)
        return part


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the `Retry-After` header asks for (it may also give a date), at most an hour; None without one."""
    value = headers.get("retry-after", "").strip()[:_LONGEST_DATE]
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait), _LONGEST_WAIT)
