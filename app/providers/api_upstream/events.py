"""The events of an upstream's stream, and what tells a stream from a whole answer. Pure."""

from collections.abc import Mapping

from msgspec import Struct

from app.domain.errors import UnexpectedReply
from app.domain.json import read_json_object
from app.providers.api_upstream.sse_decoder import SseDecoder

_LONGEST_EVENT = 1024 * 1024
# An event has a few characters of the answer in some hundred bytes of JSON.
_STREAM_OVERHEAD = 64
_FIELDS = (b"data:", b"data :", b"event:", b"id:", b"retry:", b":", b"[done]")
_LONGEST_FIELD = 6
_BLANK = b" \t\r\n\0\xef\xbb\xbf"


class Beginning:
    """An answer's first bytes, looked at once each, until they tell what it is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._has_line = False

    @property
    def text(self) -> bytes:
        """Everything but the blanks before it."""
        return b"".join(self._parts)

    def feed(self, part: bytes) -> bool:
        """Whether the bytes tell by now what the answer is."""
        if not self._parts:
            part = part.lstrip(_BLANK)
            if not part:
                return False
        self._parts.append(part)
        self._size += len(part)
        if not self._parts[0].startswith(b"{"):
            return self._size >= _LONGEST_FIELD
        if self._has_line:
            return bool(part.strip())
        if b"\n" not in part:
            return False
        self._has_line = True
        line, _, more = self.text.partition(b"\n")
        return bool(more.strip()) or read_json_object(line) is None


class SilentBytes:
    """Bounds what a stream sends without saying anything: comments, empty lines, empty events.

    Args:
        name: The upstream's.
        most: The most bytes in a row.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        # An event of the largest size has not been said before it is complete.
        self._most = 2 * max(most, _LONGEST_EVENT)
        self._bytes = self._said = 0

    def note(self, size: int, said: int) -> None:
        """Count bytes.

        Args:
            size: How many more have arrived.
            said: The characters of the answer so far.

        Raises:
            UnexpectedReply: There are too many.
        """
        if said != self._said:
            self._said, self._bytes = said, 0
            return
        self._bytes += size
        if self._bytes > self._most:
            raise UnexpectedReply(f"The stream from {self._name} has {self._bytes} bytes in a row that say nothing.")


class Events(Struct):
    """What reads the events of one stream."""

    decoder: SseDecoder
    silence: SilentBytes


def events_from(name: str, max_reply_bytes: int) -> Events:
    """What reads the events of a stream from that upstream, which may say no more than so many bytes."""
    return Events(
        SseDecoder(
            longest_event=max(_LONGEST_EVENT, max_reply_bytes), longest_stream=max_reply_bytes * _STREAM_OVERHEAD
        ),
        SilentBytes(name, max_reply_bytes),
    )


def is_events(begun: bytes, headers: Mapping[str, str] | None = None) -> bool:
    """Whether an answer that begins like this is a stream of events, or of JSON lines.

    Args:
        headers: Its content type counts where the answer itself doesn't tell.
    """
    begun = begun.lstrip(_BLANK)
    if begun[:_LONGEST_FIELD].lower().startswith(_FIELDS):
        return True
    if begun.startswith(b"{"):
        # A whole answer, unless its first line is an object of its own.
        line, _, more = begun.partition(b"\n")
        return bool(more.strip()) and read_json_object(line) is not None
    if begun.startswith((b"<", b"[")) or headers is None:
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind not in ("application/json", "text/html", "application/xhtml+xml", "application/problem+json")
