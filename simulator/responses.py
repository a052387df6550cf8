"""What answers are made of: ready ones, ones that come message by message, and the word when one is over."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simulator.behaviour import Behaviour
from simulator.server import ends_answer

HTML: Final = "text/html; charset=UTF-8"
JSON: Final = "application/json; charset=UTF-8"
END: Final[Message] = {"type": "http.response.body"}

Messages = AsyncGenerator[Message, None]


@dataclass(frozen=True, slots=True)
class Canned:
    """A ready answer. `retry_after_s`: what its Retry-After says by default; None = it never has one."""

    status: int
    body: str
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None

    def response(self, behaviour: Behaviour) -> Response:
        """The answer, with the Retry-After that the knobs want."""
        headers = dict(self.headers)
        wanted = behaviour.retry_after_s
        after = self.retry_after_s if wanted == "default" else wanted
        if self.retry_after_s is not None and after is not None:
            headers["Retry-After"] = str(after)
        return Response(self.body, self.status, headers, self.content_type)


def json_response(document: Any, status: int = 200) -> Response:
    """Any document as JSON: in ASCII, so that even half a surrogate pair can be sent."""
    return Response(json.dumps(document), status, media_type=JSON)


def start(content_type: str, length: int | None = None) -> Message:
    """The head of an answer with status 200; without a length its body is sent in chunks."""
    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def piece(body: bytes) -> Message:
    """A part of an answer's body, to be followed by more or by `END`."""
    return {"type": "http.response.body", "body": body, "more_body": True}


class Streamed:
    """Sends messages as they come."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Answer one request."""
        async with aclosing(self._messages) as messages:
            async for message in messages:
                await send(message)


class Watched:
    """Calls `ended` or `left` once: just before an answer's last byte goes out, or when its client has left before.

    Before and not after, so that whoever has the answer finds it counted.
    """

    def __init__(self, answer: ASGIApp, *, ended: Callable[[], None], left: Callable[[], None]) -> None:
        self._answer = answer
        self._ended = ended
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        over = False

        async def send_watched(message: Message) -> None:
            nonlocal over
            if ends_answer(message):
                over = True
                self._ended()
            await send(message)

        try:
            await self._answer(scope, receive, send_watched)
        except BaseException:  # above all CancelledError
            if not over:
                self._left()
            raise
