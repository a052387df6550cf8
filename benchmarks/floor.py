"""The least that an ASGI application can do with aiohttp, in an environment that has it. Run by uvicorn."""

import os

import aiohttp

from benchmarks.apps import EVENTS, Receive, Scope, Send, answer, lifespan, read_body


class Floor:
    """Passes the body on, and the answer back."""

    def __init__(self, upstream: str) -> None:
        self._url = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        body = await read_body(receive)
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            if response.content_type == "application/json":
                await answer(send, await response.read())
                return
            await send({"type": "http.response.start", "status": response.status, "headers": EVENTS})
            async for part in response.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


floor = Floor(os.environ.get("FLOOR_UPSTREAM", ""))
