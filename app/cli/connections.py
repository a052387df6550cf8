"""uvicorn's HTTP connections, each bounded in what it may send and in how long it may keep the gateway waiting.

nginx bounds both as well, but the gateway also serves without it. There are no timers per connection: the server looks
at all of them once a second, which costs a request nothing.
"""

import asyncio
import socket
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.anthropic.errors import ANTHROPIC_ERRORS
from app.api.error_responses import OPENAI_ERRORS
from app.api.gemini.errors import GEMINI_ERRORS
from app.api.wire.addresses import GOOGLE
from app.cli.cycle import Arrival, Cycle
from app.domain.errors import GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout
from app.domain.request_ids import RequestIds

_LARGEST_HEAD = 64 * 1024
# A body may take CLIENT_TIMEOUT, and longer by a second for each KiB that has come.
_SLOWEST_BODY = 1024
# Requests that a client may send before it has read the answers to earlier ones.
_MOST_PIPELINED = 64
# How errors are written, by the beginnings of addresses; OpenAI's way at all others.
_FORMS = ((b"/v1/messages", ANTHROPIC_ERRORS), (GOOGLE.encode(), GEMINI_ERRORS))
# Linux only.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
# What a request says of another protocol that it would rather speak.
_OF_UPGRADES = frozenset({b"upgrade", b"http2-settings"})


class ConnectionLimits(Struct, frozen=True):
    """What a client may do with a connection. Times are in seconds.

    Args:
        client_timeout: How long a request's head may take, from the opening of the connection or the head's first byte.
        write_timeout: How long an answer may stay unread.
        most: How many connections there may be.
    """

    client_timeout: float
    write_timeout: float
    most: int


class HttpProtocol(HttpToolsProtocol):
    """A connection.

    Args:
        limits: Its bounds.
        arguments: uvicorn's own.
    """

    def __init__(self, *, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        # When the head that is awaited or being received has begun; None while a request is being answered.
        self._head_since: float | None = None
        self._body_since = 0.0
        # Bytes of the head so far, then of the body.
        self._received = 0
        # Bytes that wait for the client to read, and since when there were never fewer.
        self._unread = 0
        self._unread_since = 0.0
        # The answered request after which `check` last found the connection idle, and when it first did so.
        self._idle_after: RequestResponseCycle | None = None
        self._idle_since = 0.0
        # Where what follows the head of a request to upgrade begins, in what has just been received.
        self._behind_upgrade: int | None = None
        self._fault: GatewayError = InvalidRequest("This is not a valid HTTP request.", code="bad_request")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client has connected."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self._limits.most:
            transport.abort()
        elif _USER_TIMEOUT is not None and (connection := transport.get_extra_info("socket")):
            # What the kernel has taken is no longer seen here, and may be megabytes: it has to give up by itself.
            with suppress(OSError):  # not a TCP connection
                milliseconds = round(self._limits.write_timeout * 1000)
                connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        if self._head_since is None and self.cycle.response_complete and not self.cycle.more_body:
            self._head_since, self._received = self.loop.time(), 0
        self._received += len(data)
        super().data_received(data)
        while self._behind_upgrade is not None:
            data = self._without_upgrade(data, self._behind_upgrade)
            super().data_received(data)
        if self._head_since is not None and self._received > _LARGEST_HEAD:
            self._refuse(HeadersTooLarge("The request's head is too large."))

    def on_headers_complete(self) -> None:
        """A request begins."""
        # What comes in one piece with the head's end may be body, so it is measured only if it is large.
        size = 0 if self._received <= _LARGEST_HEAD else sum(len(name) + len(value) for name, value in self.headers)
        if size + len(self.url) > _LARGEST_HEAD or len(self.pipeline) >= _MOST_PIPELINED:
            self._fault = HeadersTooLarge("The request's head is too large.")
            # To the parser, which ends: nothing of this becomes a request.
            raise ValueError
        self._head_since, self._received, self._body_since = None, 0, self.loop.time()
        scope, parser = self.scope, self.parser
        scope["method"], scope["http_version"] = parser.get_method().decode(), parser.get_http_version()
        if parser.should_upgrade() and self._should_upgrade():
            return
        scope["path"], scope["raw_path"], scope["query_string"] = _target(self.url)
        earlier: RequestResponseCycle | None = self.cycle
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=Arrival(self.loop),  # type: ignore[arg-type]  # it stands for uvicorn's
            expect_100_continue=self.expect_100_continue,
            keep_alive=scope["http_version"] != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_message_complete(self) -> None:
        """A request has arrived."""
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        # uvicorn leaves this out for a request that has been answered already.
        self.cycle.more_body = False
        self.cycle.message_event.set()
        if self.cycle.response_complete:
            self._head_since, self._received = self.loop.time(), 0

    def on_response_complete(self) -> None:
        """A request has been answered. uvicorn would set a timer to end an idle connection, which `check` does here."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self.pipeline:
            self.flow.resume_reading()
            return
        # uvicorn would read on meanwhile, and keep what it reads, however many requests wait already.
        self._start_asgi_task(*self.pipeline.pop())
        if self.pipeline:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def _should_upgrade(self) -> bool:
        """Whether what the parser takes for a request to upgrade is one; uvicorn then makes no request of it."""
        return self.parser.get_method() != b"CONNECT"

    def handle_websocket_upgrade(self) -> None:
        """A request asks for another protocol: a WebSocket, or HTTP/2, as Java's HTTP client does with its first."""
        stopped = sys.exception()
        if isinstance(stopped, httptools.HttpParserUpgrade):  # uvicorn calls this while it handles one
            self._behind_upgrade = stopped.args[0]

    def _without_upgrade(self, data: bytes, behind: int) -> bytes:
        """The request as if it hadn't asked for another protocol, which a server may always ignore, and what follows.

        The parser takes everything behind such a head for the other protocol, the request's body too.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = [option for option in value.split(b",") if option.strip().lower() not in _OF_UPGRADES]
                lines.append(b"connection:" + b",".join(options))
            elif name not in _OF_UPGRADES:
                lines.append(b"%b:%b" % (name, value))
        self._behind_upgrade = None
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        return b"\r\n".join((*lines, b"", data[behind:]))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer what is not HTTP, or too much of it."""
        self._refuse(self._fault)

    def check(self, now: float) -> None:
        """End the connection if its client has kept the gateway waiting for too long."""
        if self._is_unread_for_too_long(now):
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self._head_since is not None:
            if now - self._head_since > self._limits.client_timeout:
                self._refuse(RequestTimeout("The request did not arrive in time."))
        elif self.cycle.more_body and not self.flow.read_paused:
            patience = self._limits.client_timeout + self._received / _SLOWEST_BODY
            if now - self._body_since > patience:
                self._refuse(RequestTimeout("The request's body did not arrive in time."))
        elif self.cycle.response_complete:
            if self._idle_after is not self.cycle:
                self._idle_after, self._idle_since = self.cycle, now
            elif now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()

    def _is_unread_for_too_long(self, now: float) -> bool:
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread or not self._unread:
            self._unread_since = now
        self._unread = unread
        return now - self._unread_since > self._limits.write_timeout

    def _refuse(self, error: GatewayError) -> None:
        """Answer without a request, and hang up. A silent client is told nothing, as nobody asks."""
        cycle: RequestResponseCycle | None = self.cycle
        is_answered = cycle is not None and cycle.response_started and (cycle.more_body or not cycle.response_complete)
        is_silent = self._head_since is not None and not self._received
        if not (self.transport.is_closing() or is_silent or is_answered):
            self.transport.write(_answer(error, getattr(self, "url", b"") or b""))
        if cycle is not None and not cycle.response_complete:
            # Whoever answers this request must not write behind the refusal.
            cycle.disconnected = True
            cycle.message_event.set()
        self.flow.pause_reading()
        self.transport.close()


def _answer(error: GatewayError, url: bytes) -> bytes:
    """A response in the dialect of the address, as far as that is known."""
    request_id = RequestIds().new()
    form = next((form for beginning, form in _FORMS if url.startswith(beginning)), OPENAI_ERRORS)
    body = form.body(error, request_id)
    heads = [b"%s: %s\r\n" % (name, request_id.encode()) for name in form.request_id_headers]
    return b"".join(
        [
            STATUS_LINE[error.status],
            *heads,
            b"content-type: application/json\r\ncache-control: no-store\r\n",
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body),
            body,
        ]
    )


@lru_cache(64)  # most requests go to a few addresses
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """The path of an address, as it is meant and as it came, and its query.

    Raises:
        ValueError: It has none, or isn't an address.
    """
    parsed = httptools.parse_url(url)
    if parsed.path is None:
        raise ValueError
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""
