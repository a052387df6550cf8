"""Responses that cost little more than what is in them, and how any response begins."""

import time
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

# As ASGI has them: names in small letters.
RawHeaders = list[tuple[bytes, bytes]]


class Beginning:
    """How the response to a request begins: `scope["beginning"]`. The outermost layer puts it there.

    Responses of our own make their first message by it. Others have it added on their way out, by a function that every
    further message of theirs has to pass, too.

    Args:
        received: When the request came, by `time.perf_counter`.
        request_id: Goes into every response.
        id_headers: The names of the headers in which it does.
    """

    __slots__ = ("_ids", "_received", "status")

    def __init__(self, received: float, request_id: str, id_headers: Iterable[bytes]) -> None:
        value = request_id.encode()
        self._ids = [(name, value) for name in id_headers]
        self._received = received
        self.status: int | None = None

    def message(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Message:
        """The message that begins the response, now."""
        self.status = status
        milliseconds = b"%d" % round((time.perf_counter() - self._received) * 1000)
        all_headers = [*headers, *self._ids, (b"openai-processing-ms", milliseconds)]
        return {"type": "http.response.start", "status": status, "headers": all_headers}

    def added(self, send: Send) -> Send:
        """For responses that don't know of it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and self.status is None:
                message = self.message(message["status"], message["headers"])
            await send(message)

        return send_with_headers


class JsonReply(Response):
    """A whole answer in JSON. (Starlette's own responses go through their headers four times.)

    Args:
        body: The document.
        headers: What is told besides its length and type.
    """

    def __init__(self, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (), status: int = 200) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            *headers,
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it."""
        await send(scope["beginning"].message(self.status_code, self.raw_headers))
        await send({"type": "http.response.body", "body": self.body})
