"""uvicorn's HTTP/1.1 for answers that may break their connection, and a server that stops at once.

ASGI has no way to cut a connection. Here an application may send two messages of its own: `RESET` and `HANG_UP`.
And a request is cancelled when its client leaves, which plain ASGI leaves to the application to find out.
"""

import asyncio
import socket
import struct
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

RESET: Final = {"type": "simulator.reset"}
"""Sent by an application: the connection is reset, as by a server that died; what was not delivered yet is lost."""
HANG_UP: Final = {"type": "simulator.hang_up"}
"""Sent by an application: the connection is closed in order; what was written still arrives, but nothing more."""

_IDLE_SECONDS: Final = 3600
# More turns of the event loop than a connection needs from its acceptance to its end.
_TURNS_TO_CONNECT: Final = 10


def ends_answer(message: Message) -> bool:
    """Whether a message is the last of an answer: the end of its body, or the connection's."""
    if message["type"] == "http.response.body":
        return not message.get("more_body", False)
    return message in (RESET, HANG_UP)


class BreakableConnection(HttpToolsProtocol):
    """A client's connection. One request at a time is answered on it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._application: ASGIApp = self.app
        self.app = self._answer
        self.access_log = False  # `Config(access_log=False)` would turn off the process's other servers' as well
        self._answering: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or an answer has broken the connection: cancel the request."""
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # In a task of its own: uvicorn would log its own task's cancellation as an application's error.
        answer = self._application(scope, receive, partial(self._send, send))
        answering = self._answering = asyncio.ensure_future(answer)
        await asyncio.wait((answering,))
        if not answering.cancelled():
            answering.result()

    async def _send(self, send: Send, message: Message) -> None:
        if message == RESET:
            self._reset()
        elif message == HANG_UP:
            self.transport.close()
        else:
            await send(message)
            # uvicorn silently drops what is sent after the client has left; this lets `connection_lost` cancel a flood.
            await asyncio.sleep(0)
            return
        await asyncio.Event().wait()  # for `connection_lost`

    def _reset(self) -> None:
        # Lingering for 0 s makes the close a TCP reset, not an orderly end.
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class Listener:
    """A server that listens; made by `listen`."""

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state

    @property
    def port(self) -> int:
        """The port that it listens at."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and cut all connections; returns when the last request has been cancelled."""
        # An acceptance under way when the server is closed fails in asyncio, and leaves its socket open.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening)
        for _ in range(_TURNS_TO_CONNECT):
            await asyncio.sleep(0)
        self._server.close()
        for _ in range(_TURNS_TO_CONNECT):
            for connection in self._state.connections:
                connection.transport.abort()
            await asyncio.sleep(0)
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)


async def listen(application: ASGIApp, host: str, port: int) -> Listener:
    """Serve an application until the listener is closed. Port 0 = any free port. Raises OSError if it can't.

    `uvicorn.Server` is not used: it looks every tenth of a second whether to stop, and hundreds of tests would wait.
    """
    config = uvicorn.Config(
        application,
        http=BreakableConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    config.load()
    state = ServerState()
    connect = partial(BreakableConnection, config, state, {})
    return Listener(await asyncio.get_running_loop().create_server(connect, host, port), state)
