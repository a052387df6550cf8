"""Refuses bodies and headers that are too large, and sheds load that the gateway can't handle."""

from collections.abc import Collection, Mapping

from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_responses import error_response
from app.api.request import RequestContext, says_json
from app.api.wire.coding import decoded
from app.domain.errors import BodyTooLarge, GatewayError, GatewayOverloaded, HeadersTooLarge, UnsupportedCoding
from app.observe.loop_lag import LoopLag

# Digits; int() refuses numbers with more than a few thousand.
_MOST_DIGITS = 1000
_RETRY_AFTER = 2


class SizeLimit(Struct, frozen=True):
    """How large a body may be, and the setting that says so."""

    bytes: int
    setting: str

    def too_large(self) -> BodyTooLarge:
        """The error for a larger one."""
        return BodyTooLarge(f"The request body is larger than {self.bytes} bytes ({self.setting}).")


class IntakeMiddleware:
    """Refuses requests that are too large, and sheds load while the event loop can't keep up.

    A body with a `Content-Length` is refused at once, any other when it exceeds the limit; a compressed body is limited
    both as sent and as decoded. While the loop is late, POSTs get a 503 now instead of a timeout later; other requests
    are still answered.

    Args:
        max_bytes: The size limit of a body.
        upload_paths: The addresses that take files.
        max_upload_bytes: The size limit of a body there that isn't JSON.
        max_headers: The limit of header lines.
        lag: How late the event loop is.
        max_lag: Above so many seconds, calls are refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        upload_paths: Collection[str],
        max_upload_bytes: int,
        max_headers: int,
        lag: LoopLag,
        max_lag: float,
    ) -> None:
        self._app = app
        self._body = SizeLimit(max_bytes, "MAX_BODY_BYTES")
        upload = SizeLimit(max_upload_bytes, "MAX_UPLOAD_BYTES")
        self._uploads = dict.fromkeys(upload_paths, upload)
        self._max_headers = max_headers
        self._lag = lag
        self._max_lag = max_lag

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context: RequestContext = scope["context"]
        headers = context.headers
        limit = self._uploads.get(scope["path"], self._body)
        if limit is not self._body and says_json(headers):
            limit = self._body  # it is held in memory, as forms aren't
        refusal = self._refusal(scope, headers, limit)
        if refusal is not None:
            await error_response(refusal, context)(scope, receive, send)
            return
        # A body with a length ends there: the server sees to that.
        if b"content-length" not in headers or b"transfer-encoding" in headers:
            receive = _counted(receive, limit)
        if b"content-encoding" in headers:
            try:
                receive = decoded(
                    receive, headers[b"content-encoding"], max_bytes=limit.bytes, too_large=limit.too_large
                )
            except UnsupportedCoding as error:
                await error_response(error, context)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes], limit: SizeLimit) -> GatewayError | None:
        if len(scope["headers"]) > self._max_headers:
            return HeadersTooLarge(f"The request has more than {self._max_headers} headers.")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > limit.bytes):
            return limit.too_large()
        if scope["method"] == "POST" and self._lag.latest > self._max_lag:
            return GatewayOverloaded("The gateway is overloaded.", retry_after=_RETRY_AFTER)
        return None


def _counted(receive: Receive, limit: SizeLimit) -> Receive:
    """A `receive` that counts, for bodies of unknown length."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit.bytes:
                raise limit.too_large()
        return message

    return receive_counted
