"""A server whose grace time is over: it cancels the requests that still run, and each is told why."""

import asyncio
import json
from collections.abc import AsyncGenerator
from itertools import takewhile
from typing import TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.chat import Delta
from app.providers.base import CompletionRequest
from simulator.live import LiveSimulator
from tests.scripted import ScriptedProvider, gateway_with

TEXT = "word"


class Server:
    """Stands between the real server and the app, and cancels the one request as a server does that stops.

    Attributes:
        stops_as_client_leaves: Cancels it when this is set, and tells it in the same moment that its client has left.
        reads: Until this is set the client reads nothing from the answer's text on.
        held_up: Set when the client doesn't read.
    """

    def __init__(self) -> None:
        self._request: asyncio.Task[object] | None = None
        self.stops_as_client_leaves = asyncio.Event()
        self.reads = asyncio.Event()
        self.held_up = asyncio.Event()

    async def stop(self) -> None:
        assert self._request is not None
        self._request.cancel()

    def around(self, app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            self._request = asyncio.current_task()
            body_is_read = False

            async def received() -> Message:
                nonlocal body_is_read
                if body_is_read:
                    await self.stops_as_client_leaves.wait()
                    await self.stop()
                    return {"type": "http.disconnect"}
                message = await receive()
                body_is_read = not message.get("more_body")
                return message

            async def sent(message: Message) -> None:
                if TEXT.encode() in message.get("body", b""):
                    self.held_up.set()
                    await self.reads.wait()
                await send(message)

            await app(scope, received, sent)

        return serve


class Unfinished(ScriptedProvider):
    """Says a whole text, and then never comes to an end."""

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The text."""
        self.requests.append(request)
        yield Delta(f"{TEXT} " * 10, whole=True)
        await asyncio.Event().wait()


def test_a_server_that_stops_is_not_taken_for_a_client_that_left(site: LiveSimulator, log_stream: TextIO) -> None:
    """When both happen at once the request ends as the server wants it to, with a 503."""
    server, silent = Server(), ScriptedProvider("silent")
    silent.hold.clear()
    with (
        gateway_with(site, log_stream, silent, around=server.around) as gateway,
        gateway.send(model="r") as connection,
    ):
        gateway.run(silent.asked.wait)
        gateway.loop.call_soon_threadsafe(server.stops_as_client_leaves.set)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"gateway_stopping"' in answer


def test_a_stream_that_is_typed_out_to_nobody_is_told_that_the_server_stops(
    site: LiveSimulator, log_stream: TextIO
) -> None:
    """What was being written is given up first, so that the error event goes out whole, as the last one."""
    server = Server()
    with (
        gateway_with(site, log_stream, Unfinished("unfinished"), around=server.around) as gateway,
        gateway.send(model="r", stream=True) as connection,
        connection.makefile("rb") as answer,
    ):
        gateway.run(server.held_up.wait)
        gateway.run(server.stop)
        gateway.loop.call_soon_threadsafe(server.reads.set)
        lines = takewhile(lambda line: line != b"0\r\n", answer)
        events = [line[6:] for line in lines if line.startswith(b"data: ")]
    assert json.loads(events[-1])["error"]["code"] == "gateway_stopping"
