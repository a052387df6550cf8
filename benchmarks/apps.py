"""What the gateway is compared with: the least that an ASGI application can do. Run by uvicorn.

`hello` answers by itself; `stream_sleep` and `stream_ticker` type out prepared bytes, each stream with a sleep of its
own or all by one ticker. Those that pass requests on (`floor`, `own_floor`) are modules of their own: nobody else is to
bear what their clients import.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from benchmarks.mock import Upstream

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_GAP = 0.02
_EVENT = re.compile(rb"data: [^\n]+")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer without any work."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await read_body(receive)
    await answer(send, b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"}}]}')


class _Prepared:
    """The pieces of an answer, as uvicorn takes them (it frames the chunks by itself)."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def load(self) -> list[bytes]:
        """The mock's own stream without HTTP's framing."""
        if not self.pieces:
            upstream = Upstream()
            upstream.prepare(int(os.environ.get("STREAM_PIECES", "150")))
            self.pieces = [_unframed(chunk) for chunk in upstream.chunks]
        return self.pieces


def _unframed(chunk: bytes) -> bytes:
    """The events of a chunk without HTTP's framing."""
    return b"".join(event + b"\n\n" for event in _EVENT.findall(chunk))


_prepared = _Prepared()


async def stream_sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream as one would write it first: a piece, a sleep, a piece."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await read_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
    for index, piece in enumerate(_prepared.load()):
        if index:
            await asyncio.sleep(_GAP)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Ticker:
    """The same with one timer for all streams: it wakes those whose turn it is."""

    _SLOTS = 10

    def __init__(self) -> None:
        self._slots: list[list[asyncio.Future[None]]] = [[] for _ in range(self._SLOTS)]
        self._tick = 0
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for index, piece in enumerate(_prepared.load()):
            if index:
                await self._turn()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _turn(self) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self._slots[self._tick].append(waiter)
        return waiter

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + _GAP / self._SLOTS, loop.time())
            await asyncio.sleep(due - loop.time())
            self._tick = (self._tick + 1) % self._SLOTS
            waiters, self._slots[self._tick] = self._slots[self._tick], []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


stream_ticker = Ticker()


async def lifespan(receive: Receive, send: Send) -> None:
    """Say that all is well, at the start and at the end."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read_body(receive: Receive) -> bytes:
    """A request's body."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def answer(send: Send, body: bytes) -> None:
    """A whole JSON answer."""
    headers = [*_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
