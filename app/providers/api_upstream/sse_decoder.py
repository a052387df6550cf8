"""Decodes server-sent events as upstreams really send them. Pure.

Follows the event stream format of the HTML standard (any line end, comments, a byte order mark, several data lines),
and is lenient where upstreams deviate: an event may end with the stream, or with one line end where its data is a whole
object; bare JSON lines count as data, and so do data lines with blanks, byte order marks or capitals that are mistakes.
"""

import re

from app.domain.errors import UnexpectedReply
from app.domain.json import read_json_object

DONE = b"[DONE]"

# How often an event's data is looked at to see whether it is whole, on average.
_LOOKS = 4

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A data line with something before it or in it that doesn't belong there. What it says must not get lost.
_ODD_DATA = re.compile(rb"(?:\xef\xbb\xbf|[\s\0])*data\s*:\s?", re.IGNORECASE)
_BEGINS_ODDLY = frozenset(b"\xef\0 \t\v\fdD")


class SseDecoder:
    """Turns bytes into the data of events, however the bytes are split.

    Args:
        longest_event: The most bytes of one line, and of the data of one event.
        longest_stream: The most bytes of the whole stream.
    """

    def __init__(self, *, longest_event: int, longest_stream: int) -> None:
        self._longest_event = longest_event
        self._longest_stream = longest_stream
        self._size = 0
        self._line: list[bytes] = []
        self._line_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._looked_at = 0
        self._after_return = False
        self._at_start = True

    def feed(self, part: bytes) -> list[bytes]:
        """The data of the events that these bytes complete.

        Raises:
            UnexpectedReply: A line, an event or the stream is too long.
        """
        self._size += len(part)
        if self._size > self._longest_stream:
            raise UnexpectedReply(f"The upstream's answer is longer than {self._longest_stream} bytes.")
        events = self._plain_events(part)
        return self._read(part) if events is None else events

    def finish(self) -> list[bytes]:
        """The data of an event that the end of the stream completes."""
        events: list[bytes] = []
        self._take(self._completed(b""), events)
        self._take(b"", events)
        return events

    def _plain_events(self, part: bytes) -> list[bytes] | None:
        """The events in the usual case, whole events with one line of data each; None in any other.

        For speed: line by line takes a third longer.
        """
        if self._line or self._data or self._after_return or self._at_start:
            return None
        # `find`, for speed: `in` raises a TypeError within, and catches it, before it looks for bytes.
        if len(part) > self._longest_event or part.find(b"\r") >= 0:
            return None
        lines = part.split(b"\n")
        if lines.pop() or len(lines) % 2 or any(lines[1::2]):
            return None
        events: list[bytes] = []
        for line in lines[::2]:
            if not line.startswith(b"data: "):
                return None
            events.append(line[6:])
        return events

    def _read(self, part: bytes) -> list[bytes]:
        """The events in any case, line by line."""
        *lines, rest = self._with_plain_line_ends(part).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            self._take(self._completed(line), events)
        if rest:
            self._line_size += len(rest)
            self._bound(self._line_size)
            self._line.append(rest)
        return events

    def _with_plain_line_ends(self, part: bytes) -> bytes:
        if self._after_return and part:
            part = part.removeprefix(b"\n")
            self._after_return = False
        if b"\r" not in part:
            return part
        self._after_return = part.endswith(b"\r")
        return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _completed(self, end: bytes) -> bytes:
        if self._line:
            end = b"".join((*self._line, end))
            self._line.clear()
            self._line_size = 0
        if self._at_start:
            self._at_start = False
            end = end.removeprefix(_BYTE_ORDER_MARK)
        return end

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._append(line[6:] if line[5:6] == b" " else line[5:], events)
        elif not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._data_size = 0
                self._looked_at = 0
        elif line.startswith((b"{", DONE)):
            self._append(line, events)
        elif line[0] in _BEGINS_ODDLY and (found := _ODD_DATA.match(line)):
            self._append(line[found.end() :], events)

    def _append(self, data: bytes, events: list[bytes]) -> None:
        if self._data and self._is_whole():
            events.append(b"\n".join(self._data))
            self._data.clear()
            self._data_size = 0
            self._looked_at = 0
        self._data_size += len(data) + 1
        self._bound(self._data_size)
        self._data.append(data)

    def _is_whole(self) -> bool:
        """Whether the data so far needs no further line."""
        if not self._data[0].startswith(b"{") or not self._data[-1].endswith(b"}"):
            return self._data == [DONE]
        # Reading all of it after each line would take a time that grows with its square. Where nobody looks, objects
        # stay together, and whoever reads the event takes them apart.
        if self._looked_at > _LOOKS * self._data_size:
            return False
        self._looked_at += self._data_size
        return read_json_object(b"\n".join(self._data)) is not None

    def _bound(self, size: int) -> None:
        if size > self._longest_event:
            raise UnexpectedReply(f"The upstream's answer has an event longer than {self._longest_event} bytes.")
