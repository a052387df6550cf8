"""One connection to an upstream: HTTP/1.1 on a transport, one exchange after the other."""

import asyncio
import select
from collections.abc import Mapping
from typing import Protocol, cast

import httptools

from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.providers.http.answer import Answer
from app.providers.http.headers import Headers
from app.providers.http.route import Route

# What may come between two bytes of a body, or before the first: heads, interim answers, chunk sizes, trailers.
_LONGEST_HEAD = 64 * 1024
_MOST_FIELDS = 256
_NO_HTTP = "The upstream's answer is not valid HTTP."


class Home(Protocol):
    """Who keeps connections."""

    def opened(self, connection: "Connection") -> None:
        """It is there."""

    def lost(self, connection: "Connection") -> None:
        """It is no more."""


class Connection(asyncio.Protocol):
    """Sends requests and takes their answers in, one at a time.

    The event loop calls `connection_made`, `data_received`, `eof_received` and `connection_lost`; the parser calls
    what begins with `on_`.

    Args:
        route: Where it leads.
        home: Told of its birth and its death.
    """

    def __init__(self, route: Route, home: Home) -> None:
        self.route = route
        self.idle_since = 0.0
        self._home = home
        self._answer: Answer | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        # Is the answer on its way one that only says that the true one is still to come?
        self._interim = False
        self._until_close = False
        self._usable = False
        self._no_http = False
        self._paused = False
        self._bytes_without_body = 0
        self._readable = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._parser = httptools.HttpResponseParser(self)
        # As browsers do, and as far as no two readers could disagree on where an answer ends.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._usable = True
        self._home.opened(self)

    @property
    def is_fresh(self) -> bool:
        """Can it be used once more, as far as can be known? What is readable now is its end, or unasked for."""
        return self._usable and not self._transport.is_closing() and not self._readable.poll(0)

    def send(self, request: bytes) -> Answer:
        """Begin an exchange; `free` ends it."""
        answer = self._answer = Answer(self)
        self._until_close = self._interim = False
        self._bytes_without_body = 0
        self._fields = []
        if self._usable:
            self._transport.write(request)
        elif self._no_http:
            answer.fail(UnexpectedReply, _NO_HTTP)
        else:
            self._missing(answer)
        return answer

    def free(self) -> bool:
        """End the exchange; can there be another one? If not, the connection is dropped at once."""
        answer, self._answer = self._answer, None
        if answer is None or not (self._usable and answer.ended) or self._transport.get_write_buffer_size():
            self.abort()
            return False
        if self._paused:
            self.resume()
        return True

    def abort(self) -> None:
        """Drop the connection, whatever is on the way."""
        self._usable = False
        self._transport.abort()

    def pause(self) -> None:
        """Read no more for the time being."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse what has come in."""
        answer = self._answer
        if answer is None or answer.ended:
            # Said without being asked.
            self._no_http = True
            self.abort()
            return
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._give_up(answer)
        if self._bytes_without_body > _LONGEST_HEAD:
            self._give_up(answer)

    def eof_received(self) -> None:
        """The upstream has said all that it will say."""
        self._end(None)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is no more."""
        self._end(error)
        # They hold each other.
        del self._parser
        self._home.lost(self)

    def on_message_begin(self) -> None:
        """An answer begins; no second one is wanted."""
        if self._answer is None or self._answer.ended:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or one of the trailers, which nobody wants."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 100 or self._is_too_long(fields):
            raise ValueError("no head that anybody would send")
        self._interim = status < 200 and status != 101
        if self._interim or self._answer is None:
            return
        raw = {name.lower(): value for name, value in fields}
        self._usable = self._parser.should_keep_alive() and status != 101
        self._until_close = b"content-length" not in raw and not _is_chunked(raw)
        cookies = _cookies(fields) if b"set-cookie" in raw else ()
        self._answer.begin(status, Headers(raw), cookies)

    def on_body(self, part: bytes) -> None:
        """A part of the body is there."""
        self._bytes_without_body = 0
        if self._answer is not None:
            self._answer.add(part)

    def on_message_complete(self) -> None:
        """The answer is there, or one before it."""
        if not self._interim and self._answer is not None:
            self._answer.end()

    def _is_too_long(self, fields: list[tuple[bytes, bytes]]) -> bool:
        if len(fields) > _MOST_FIELDS:
            return True
        if self._bytes_without_body <= _LONGEST_HEAD:
            return False
        return sum(len(name) + len(value) for name, value in fields) > _LONGEST_HEAD

    def _give_up(self, answer: Answer) -> None:
        self._usable = False
        if not answer.ended:
            self._no_http = True
            answer.fail(UnexpectedReply, _NO_HTTP)
            self.abort()

    def _end(self, error: Exception | None) -> None:
        """The upstream has gone."""
        self._usable = False
        answer = self._answer
        if answer is None or answer.ended:
            return
        if answer.status and self._until_close and error is None:
            answer.end()
        else:
            self._missing(answer)

    def _missing(self, answer: Answer) -> None:
        if answer.status:
            answer.fail(UpstreamUnavailable, "The upstream broke off in the middle of its answer.")
        else:
            answer.fail(UpstreamUnavailable, "The upstream closed the connection without an answer.")


def _is_chunked(raw: Mapping[bytes, bytes]) -> bool:
    return raw.get(b"transfer-encoding", b"").rstrip().lower().endswith(b"chunked")


def _cookies(fields: list[tuple[bytes, bytes]]) -> list[str]:
    return [value.decode("latin-1") for name, value in fields if name.lower() == b"set-cookie"]
