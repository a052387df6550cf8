"""uvicorn, ending without losing a request."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
from types import FrameType

import uvicorn
from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.ops import Drain

try:
    import resource
except ImportError:  # Windows, which sets no such limits
    resource = None  # type: ignore[assignment]

# So many new objects are made before the young ones are looked through. A request makes hundreds, all short-lived, and
# few of them in cycles: Python's own figure, made for scripts, has them looked through at every other request.
_YOUNG_OBJECTS = 10_000
# How long a connection that was just accepted may take to send its request.
_LAST_REQUEST_SECONDS = 0.3


def allow_open_files() -> None:
    """As many as the process may have: each waiting request takes two, and the usual soft limit is 1024."""
    if resource is None:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems promise more than they give
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, without chunks for clients of HTTP/1.0, which would take their sizes for text."""

    def on_headers_complete(self) -> None:
        """A request begins."""
        super().on_headers_complete()
        # A request to upgrade has no cycle.
        if self.scope["http_version"] == "1.0" and getattr(self.cycle, "scope", None) is self.scope:
            self.cycle.send = _without_chunks(self.cycle)  # type: ignore[method-assign, assignment]  # no other way in


def _without_chunks(cycle: RequestResponseCycle) -> Send:
    """A `send` for an answer that the end of the connection ends, if it doesn't say how long it is."""
    send, endless = cycle.send, False

    async def send_plain(message: Message) -> None:
        nonlocal endless
        if message["type"] == "http.response.start":
            endless = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if endless:
                cycle.chunked_encoding = False
        elif endless:
            # uvicorn counts what is missing of a length that was told.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)  # type: ignore[arg-type]  # uvicorn has its own name for the same messages

    return send_plain


class GracefulServer(uvicorn.Server):
    """On SIGTERM `/ready` says so for a while, still serving; then the door is closed.

    uvicorn by itself would hang up on connections that the kernel has taken but nobody has accepted yet, and on those
    whose request has not been read. A proxy in front has sent its request by then, and may not send a POST again.

    Args:
        drain: Read by `/ready`.
        seconds: How long it says 503 before the door is closed.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM begins the drain; a second one, and any other signal, ends the server at once."""
        if sig != signal.SIGTERM or self._drain.active:
            super().handle_exit(sig, frame)
            return
        self._drain.active = True
        threading.Timer(self._seconds, super().handle_exit, (sig, frame)).start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door. What has been made by now stays: the garbage collector need not look through it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, serve who is inside, end."""
        if self._drain.active:
            await self._serve_the_last()
        await super().shutdown(sockets)

    async def _serve_the_last(self) -> None:
        loop = asyncio.get_running_loop()
        waiting: list[socket.socket] = []
        for server in self.servers:
            # A copy keeps the socket open for a moment after the server has let go of it.
            copies = [socket.socket(fileno=os.dup(listener.fileno())) for listener in server.sockets]
            server.close()
            for copy in copies:
                waiting.extend(_accept_all(copy))
                copy.close()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_LAST_REQUEST_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        factory = self.config.http_protocol_class
        return factory(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]  # as uvicorn itself calls it


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """All connections that wait to be accepted."""
    listener.setblocking(False)
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # BlockingIOError: nobody waits any more
            return accepted
        connection.setblocking(False)
        accepted.append(connection)
