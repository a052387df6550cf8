"""What the gateway is willing to take in: bodies and headers of a sane size, and no more work than it can do."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.domain.errors import BodyTooLarge, GatewayOverloaded, HeadersTooLarge

# More than any size has; int() takes no number with more than a few thousand.
_MOST_DIGITS = 1000
_RETRY_AFTER = 2


class LimitsMiddleware:
    """Refuses what is too large, and sheds load while the event loop can't keep up.

    A body that says it is too large is answered at once, one that turns out to be when it does. While the loop is late,
    new calls get a 503 now instead of a timeout later; reading requests are still answered.

    Args:
        max_bytes: The largest body that is read.
        max_headers: The most header lines.
        loop_lag: How late the event loop was when it was last looked at, in seconds.
        max_lag: Above this, calls are refused.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, max_headers: int, loop_lag: Callable[[], float], max_lag: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_headers = max_headers
        self._loop_lag = loop_lag
        self._max_lag = max_lag

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await error_response(refusal, scope)(scope, receive, send)
            return
        headers = scope["headers_by_name"]
        # A body is as long as it says: HTTP ends it there.
        if b"content-length" not in headers or b"transfer-encoding" in headers:
            receive = self._counted(receive)
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """For bodies that don't say how long they are."""
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise self._too_large()
            return message

        return receive_counted

    def _refusal(self, scope: Scope) -> BodyTooLarge | HeadersTooLarge | GatewayOverloaded | None:
        if len(scope["headers"]) > self._max_headers:
            return HeadersTooLarge(f"The request has more than {self._max_headers} headers.")
        if self._announces_too_much(scope["headers_by_name"].get(b"content-length", b"")):
            return self._too_large()
        if scope["method"] == "POST" and self._loop_lag() > self._max_lag:
            return GatewayOverloaded("The gateway has more to do than it can.", retry_after=_RETRY_AFTER)
        return None

    def _announces_too_much(self, length: bytes) -> bool:
        return length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > self._max_bytes)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than {self._max_bytes} bytes (MAX_BODY_BYTES).")
