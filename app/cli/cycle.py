"""A request and its response on a connection, read and written as uvicorn would do it.

The shape is for speed: over a head of 17 headers uvicorn's own class runs a tenth of all of a call's bytecodes.
"""

import asyncio

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, RequestResponseCycle

# What a header's value must not have in it, as it could end the line.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})
_WITHOUT_BODY = frozenset({204, 304})
# The beginnings of lines that say how the response goes on.
_LENGTH, _CODING, _CONNECTION = b"\r\ncontent-length: ", b"\r\ntransfer-encoding: ", b"\r\nconnection: "
# What `_line_start` has said; upstreams may send any names.
_MOST_LINE_STARTS = 1000
_line_starts: dict[bytes, bytes] = {}
_STATUS_LINES = {status: line.removesuffix(b"\r\n") for status, line in STATUS_LINE.items()}


class Arrival:
    """Tells whether something has come of a request, or its client has left. uvicorn sets it.

    It stands for an `asyncio.Event`, which looks for its loop under a lock, and whose `wait` is a coroutine more.

    Args:
        loop: The event loop.
    """

    __slots__ = ("_has_come", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._has_come = False
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        """Something has come."""
        self._has_come = True
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def take(self) -> bool:
        """Whether something has come since it was taken last."""
        has_come, self._has_come = self._has_come, False
        return has_come

    def next(self) -> asyncio.Future[None]:
        """Done when something comes."""
        self._waiting.append(future := self._loop.create_future())
        return future


class Cycle(RequestResponseCycle):
    """uvicorn's cycle with heads that cost less and go with what follows them, and without its access log.

    An answer to HTTP/1.0 that doesn't say how long it is ends with its connection: clients of HTTP/1.0 would take the
    sizes of chunks for text.
    """

    # Whether the end of the connection ends the answer.
    _is_endless = False
    # A head that waits to be written with the first part of the body, as ASGI has it, which saves the kernel and the
    # client a write. Until then another one may take its place, such as that of a 500.
    _head = b""
    message_event: Arrival  # type: ignore[assignment]  # it stands for uvicorn's

    async def receive(self) -> Message:  # type: ignore[override]  # uvicorn has its own name for the same
        """The next part of the request's body, or, after the last one, the client's leaving."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not (self.disconnected or self.response_complete):
            self.flow.resume_reading()
            if not self.message_event.take():
                await self.message_event.next()
                self.message_event.take()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:  # type: ignore[override]  # uvicorn has its own name for the same
        """One ASGI message of the response."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.body" and (self._head or self.response_started):
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        elif message["type"] == "http.response.start" and not self.response_started:
            # What an earlier head said counts no longer.
            self._head, self._is_endless, self.chunked_encoding, self.expected_content_length = b"", False, None, 0
            self._begin(message)
        else:
            raise RuntimeError(f"The message {message['type']!r} comes out of turn.")

    def _begin(self, message: Message) -> None:
        """Make the head, and take in what it says about how the response goes on."""
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        try:
            lines = [_line_starts[name] + value for name, value in headers]
        except KeyError:  # a name that hasn't been here before
            lines = [_line_start(name) + value for name, value in headers]
        head = _STATUS_LINES[status] + b"".join(lines)
        # Looked for in all lines at once: in each it would take longer. Each has two of its own, at its beginning.
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * len(headers):
            raise RuntimeError("A header's value has a control character in it.")
        says_close = False
        if head.find(_CONNECTION) >= 0 or head.find(_CODING) >= 0:
            says_close = self._note([(name.lower(), value) for name, value in headers])
        elif (place := head.find(_LENGTH)) >= 0:
            self.expected_content_length = int(head[place + len(_LENGTH) :].partition(b"\r")[0])
            self.chunked_encoding = False
        end = b"\r\n\r\n"
        if not self.keep_alive and not says_close:
            end = b"\r\nconnection: close" + end
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            self._is_endless = self.scope["http_version"] == "1.0"
            self.chunked_encoding = not self._is_endless
            if self.chunked_encoding:
                end = b"\r\ntransfer-encoding: chunked" + end
        self.waiting_for_100_continue = False
        self._head = head + end

    def _note(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Take in headers of which some may say how the response goes on; whether the connection ends with it."""
        says_close = False
        for name, value in headers:
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive, says_close = False, True
        return says_close

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if self.response_complete:
            raise RuntimeError("The response is complete already.")
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        elif self.chunked_encoding:
            body = _chunk(body, is_last=is_last)
        elif not self._is_endless:
            if len(body) > self.expected_content_length:
                raise RuntimeError("The response is longer than its Content-Length.")
            self.expected_content_length -= len(body)
        if self._head:
            body, self._head, self.response_started = self._head + body, b"", True
        if body:
            self.transport.write(body)
        if is_last:
            self._end()

    def _end(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("The response is shorter than its Content-Length.")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _chunk(body: bytes, *, is_last: bool) -> bytes:
    end = b"0\r\n\r\n" if is_last else b""
    return b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end


def _line_start(name: bytes) -> bytes:
    """What comes before a header's value, the end of the line before it included."""
    if HEADER_RE.search(name):
        raise RuntimeError("A header's name has a character in it that it must not have.")
    start = b"\r\n%b: " % name.lower()
    if len(_line_starts) < _MOST_LINE_STARTS:
        _line_starts[name] = start
    return start
