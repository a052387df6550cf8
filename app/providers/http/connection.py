"""A connection: HTTP/1.1 on a transport, one exchange after the other."""

import asyncio
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import cast

import httptools

from app.providers.http.destination import Destination
from app.providers.http.exceptions import ConnectionReset, IncompleteReply, NoReply, ProtocolError
from app.providers.http.replies import HttpStream

# What may arrive before a body or between two of its bytes: heads, interim replies, chunk sizes, trailers.
_MAX_HEAD = 64 * 1024
_MAX_HEADERS = 256
# Given twice they are a list, of which the last entry isn't all.
_REPEATED = frozenset({b"set-cookie", b"transfer-encoding", b"content-encoding"})


class Connection(asyncio.Protocol):
    """Sends requests and feeds the replies to streams, one at a time.

    The event loop calls `connection_made`, `data_received`, `eof_received` and `connection_lost`; the parser calls the
    methods whose names begin with `on_`.

    Args:
        destination: What it leads to.
        on_lost: Called when it is closed.

    Attributes:
        idle_since: When the last exchange ended, in the event loop's time; for the pool.
        is_lost: It is closed.
    """

    def __init__(self, destination: Destination, on_lost: "Callable[[Connection], None]") -> None:
        self.destination = destination
        self.idle_since = 0.0
        self.is_lost = False
        self._on_lost = on_lost
        self._stream: HttpStream | None = None
        self._headers: dict[bytes, bytes] = {}
        self._set_cookies: list[bytes] = []
        # An interim reply (1xx) is being received: the final one is still to come.
        self._interim = False
        self._until_close = False
        # A NUL has come with the head, or in the first part of the body.
        self._has_nul = False
        self._reusable = False
        self._protocol_violated = False
        self._paused = False
        # All of the request has been written.
        self._is_sent = True
        # The server takes no more for the time being: who waits for it, if somebody does.
        self._is_full = False
        self._writer: asyncio.Future[None] | None = None
        self._bytes_outside_body = 0
        self._readable = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Get ready for the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._parser = httptools.HttpResponseParser(self)
        # As lenient as browsers, as far as no two readers could disagree on where a reply ends.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._reusable = True

    @property
    def is_fresh(self) -> bool:
        """Whether another request can be sent, as far as can be known. Anything readable now ends the connection."""
        return self._reusable and not self._transport.is_closing() and not self._readable.poll(0)

    def send(self, request: bytes, max_reply_bytes: int, *, is_whole: bool = True) -> HttpStream:
        """Send a request and return its reply, which has yet to arrive. `end_exchange` afterwards.

        Args:
            is_whole: False if more of its body will come by `send_more`, and then `end_request`.
        """
        stream = self._stream = HttpStream(self, max_reply_bytes)
        self._until_close = self._interim = self._has_nul = False
        self._bytes_outside_body = 0
        self._headers, self._set_cookies = {}, []
        self._is_sent = is_whole
        if self._reusable:
            self._transport.write(request)
        else:
            stream.fail(ProtocolError if self._protocol_violated else NoReply)
        return stream

    async def send_more(self, piece: bytes) -> None:
        """Send a piece of the request's body, once the server has taken most of those before it.

        Returns early if there is a reply, or no server any more.
        """
        self._transport.write(piece)
        stream = self._stream
        while self._is_full and not (stream is None or stream.status or stream.ended):
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def end_request(self) -> None:
        """Note that all of the request's body has been sent."""
        self._is_sent = True

    def pause_writing(self) -> None:
        """Note that too much waits to be sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Note that the server takes more again."""
        self._is_full = False
        self._wake_writer()

    def end_exchange(self) -> bool:
        """Return whether another exchange can follow this one; if not, the connection is dropped."""
        stream, self._stream = self._stream, None
        if (
            stream is None
            or not (self._reusable and stream.ended and self._is_sent)
            # A reply that came before all of its request was sent: the next request would have to wait behind the rest.
            or self._transport.get_write_buffer_size()
        ):
            self.abort()
            return False
        if self._paused:
            self.resume_reading()
        return True

    def abort(self) -> None:
        """Drop the connection, whatever is being sent or received."""
        self._reusable = False
        if not self._transport.is_closing():
            # Now, while `abort` waits for the loop's next turn: by then another request may be under way in the place
            # of this one, and an upstream that takes a few at once would have one too many.
            _shut_down(self._transport)
        self._transport.abort()

    def pause_reading(self) -> None:
        """Receive nothing for the time being."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse what has been received."""
        stream = self._stream
        if stream is None or stream.ended:
            # Nobody has asked for this.
            self._protocol_violated = True
            self.abort()
            return
        self._bytes_outside_body += len(data)
        # `find`, for speed: `in` raises a TypeError within, and catches it, before it looks for bytes.
        if not stream.status and data.find(b"\0") >= 0:
            self._has_nul = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._give_up(stream)
        if self._bytes_outside_body > _MAX_HEAD:
            self._give_up(stream)

    def eof_received(self) -> None:
        """Close: the server will send nothing more."""
        self._end(None)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange, if there is one, and report the end."""
        self._end(error)
        self.is_lost = True
        # They refer to each other.
        del self._parser
        self._on_lost(self)

    def on_message_begin(self) -> None:
        """Refuse a second reply to one request."""
        if self._stream is None or self._stream.ended:
            raise ValueError("a second reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field of the head, or of the trailers, which nobody reads."""
        name = name.lower()
        if name in _REPEATED:
            if name == b"set-cookie":
                self._set_cookies.append(value)
            elif name in self._headers:
                value = b"%b, %b" % (self._headers[name], value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Check the head, and pass it on."""
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        set_cookies, self._set_cookies = self._set_cookies, []
        if status < 100 or len(headers) + len(set_cookies) > _MAX_HEADERS:
            raise ValueError("not an acceptable head")
        if b"".join(headers).find(b" ") >= 0:
            # The parser frames a reply also by names with a space before the colon, which others on the way may not do.
            raise ValueError("a space before a colon")
        if self._has_nul and b"\0" in b"".join((*headers.values(), *set_cookies)):
            raise ValueError("a NUL in a header")
        if self._bytes_outside_body > _MAX_HEAD and _size(headers, set_cookies) > _MAX_HEAD:
            raise ValueError("too long a head")
        self._interim = status < 200 and status != 101
        if self._interim or self._stream is None:
            return
        self._reusable = self._parser.should_keep_alive() and status != 101
        coding = headers.get(b"transfer-encoding")
        self._until_close = coding is None and b"content-length" not in headers
        if coding is not None:
            self._until_close = self._ends_with_connection(coding.strip().lower())
        self._stream.feed_head(status, headers, set_cookies)
        if self._writer is not None:
            self._wake_writer()

    def on_body(self, part: bytes) -> None:
        """Pass a part of the body on."""
        self._bytes_outside_body = 0
        if self._stream is not None:
            self._stream.feed_data(part)

    def on_message_complete(self) -> None:
        """End the reply, unless it was an interim one."""
        if not self._interim and self._stream is not None:
            self._stream.feed_eof()

    def _ends_with_connection(self, coding: bytes) -> bool:
        """What a `Transfer-Encoding` means for the end of the body.

        Raises:
            ValueError: It is one that can't be read, or several: others on the way may see another end.
        """
        if coding not in (b"chunked", b"identity"):
            raise ValueError("an unknown transfer coding")
        if self._parser.get_http_version() == "1.0":
            self._reusable = False  # HTTP/1.0 knows no such thing
        return coding == b"identity"

    def _give_up(self, stream: HttpStream) -> None:
        self._reusable = False
        if not stream.ended:
            self._protocol_violated = True
            stream.fail(ProtocolError)
            self.abort()
            self._wake_writer()

    def _end(self, error: Exception | None) -> None:
        """The server has gone."""
        self._reusable = False
        stream = self._stream
        if stream is None or stream.ended:
            return
        if not stream.status:
            stream.fail(ConnectionReset if isinstance(error, ConnectionResetError) else NoReply)
        elif self._until_close and error is None:
            stream.feed_eof()
        else:
            stream.fail(IncompleteReply)
        self._wake_writer()

    def _wake_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():  # whoever waited may have been cancelled
            writer.set_result(None)


def _shut_down(transport: asyncio.Transport) -> None:
    """Tell the server that its client is gone."""
    own = transport.get_extra_info("socket")
    # uvloop's sockets can't do it themselves.
    with suppress(OSError), socket.fromfd(own.fileno(), own.family, own.type) as same:
        same.shutdown(socket.SHUT_RDWR)


def _size(headers: Mapping[bytes, bytes], set_cookies: Sequence[bytes]) -> int:
    return sum(map(len, (*headers, *headers.values(), *set_cookies)))
