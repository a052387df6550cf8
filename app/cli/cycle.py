"""A request and its response on a connection, written as uvicorn would write it.

The shape is for speed: over a head of 17 headers uvicorn's own class runs a tenth of all of a call's bytecodes.
"""

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, RequestResponseCycle

# What a header's value must not have in it, as it could end the line.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})
_WITHOUT_BODY = frozenset({204, 304})
# Headers that say how the response goes on.
_TELLING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
# What `_line_start` has said of others; upstreams may send any.
_MOST_LINE_STARTS = 1000
_line_starts: dict[bytes, bytes] = {}
_STATUS_LINES = {status: line.removesuffix(b"\r\n") for status, line in STATUS_LINE.items()}


class Cycle(RequestResponseCycle):
    """uvicorn's cycle with heads that cost less, and without its access log.

    An answer to HTTP/1.0 that doesn't say how long it is ends with its connection: clients of HTTP/1.0 would take the
    sizes of chunks for text.
    """

    # Whether the end of the connection ends the answer.
    _is_endless = False

    async def send(self, message: Message) -> None:  # type: ignore[override]  # uvicorn has its own name for the same
        """One ASGI message of the response."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.body" and self.response_started:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        elif message["type"] == "http.response.start" and not self.response_started:
            # What a head said that was refused counts no longer.
            self.chunked_encoding, self.expected_content_length = None, 0
            self._write_head(message)
        else:
            raise RuntimeError(f"The message {message['type']!r} comes out of turn.")

    def _write_head(self, message: Message) -> None:
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        says_close = False
        lines = [_STATUS_LINES[status]]
        for name, value in headers:
            if name in _line_starts:
                lines.append(_line_starts[name])
            else:
                says_close = self._note(name.lower(), value) or says_close
                lines.append(_line_start(name))
            lines.append(value)
        head = b"".join(lines)
        # Looked for in all lines at once: in each it would take longer. Each has two of its own, at its end.
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * len(headers):
            raise RuntimeError("A header's value has a control character in it.")
        end = b"\r\n\r\n"
        if not self.keep_alive and not says_close:
            end = b"\r\nconnection: close" + end
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            self._is_endless = self.scope["http_version"] == "1.0"
            self.chunked_encoding = not self._is_endless
            if self.chunked_encoding:
                end = b"\r\ntransfer-encoding: chunked" + end
        self.response_started = True
        self.waiting_for_100_continue = False
        self.transport.write(head + end)

    def _note(self, name: bytes, value: bytes) -> bool:
        """Take in a header that may say how the response goes on; whether the connection ends with it."""
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length, self.chunked_encoding = int(value), False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length, self.chunked_encoding = 0, True
        elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
            self.keep_alive = False
            return True
        return False

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
        if body:
            self.transport.write(body)
        if is_last:
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
    if name.lower() not in _TELLING and len(_line_starts) < _MOST_LINE_STARTS:
        _line_starts[name] = start
    return start
