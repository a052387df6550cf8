"""No request body is larger than the gateway is willing to hold in memory."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.domain.errors import BodyTooLarge

# int() takes no number with more than a few thousand digits.
_MOST_DIGITS = 1000


class BodyLimitMiddleware:
    """Answers 413 to a body that says it is too large, and to one that turns out to be.

    Args:
        max_bytes: The largest body that is read.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._announces_too_much(Headers(scope=scope).get("content-length", "")):
            await error_response(self._too_large())(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise self._too_large()
            return message

        await self._app(scope, receive_counted, send)

    def _announces_too_much(self, length: str) -> bool:
        # What isn't a sane number is left to the count below.
        return length.isascii() and length.isdigit() and len(length) < _MOST_DIGITS and int(length) > self._max_bytes

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than {self._max_bytes} bytes (MAX_BODY_BYTES).")
