"""The least that an ASGI application can do with the gateway's own HTTP client. Run by uvicorn."""

import os

from app.providers.http import HttpClient
from benchmarks.apps import Receive, Scope, Send, answer, lifespan, read_body


class OwnFloor:
    """Passes the body on with the gateway's own client, and the whole answer back."""

    def __init__(self, upstream: str) -> None:
        self._url = upstream
        self._client = HttpClient(max_reply_bytes=1 << 20, keep_cookies=False)
        self._open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if not self._open:
            self._open = True
            await self._client.open()
        reply = await self._client.post_json(self._url, await read_body(receive), {})
        await answer(send, reply.body)


own_floor = OwnFloor(os.environ.get("FLOOR_UPSTREAM", ""))
