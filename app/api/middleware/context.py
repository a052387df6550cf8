"""The outermost layer: every request gets an id, a clock and a line in the log, and every fault an answer."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import ErrorForm, error_form_of, error_response
from app.domain.errors import GatewayStopping, InternalError
from app.observe.logging import access_fields, log_access
from app.observe.metrics import Metrics

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What is counted for a request that was never answered.
_NO_RESPONSE = 499
# Asked every few seconds by whatever watches over the process.
_PROBES = frozenset({"/health", "/ready"})
# A session's id is its user's, often an e-mail address: it stays out of the log.
_SESSION_PATH = "/v1/sessions/"


class RequestContextMiddleware:
    """Takes the client's `X-Request-ID` if it is sane, or makes one; it comes back in every response and log line.

    Adds `x-request-id` and `openai-processing-ms` (milliseconds until the response began). An exception that nobody
    expected becomes a 500 that says nothing about it; the log has the rest.

    Args:
        error_forms: Those besides OpenAI's; all errors of a request are written in the form that is found here.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, error_forms: Sequence[ErrorForm] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._error_forms = tuple(error_forms)
        self._log = structlog.get_logger("kimi.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["request_id"] = request_id = _request_id(Headers(scope=scope))
        scope["error_form"] = form = error_form_of(scope, self._error_forms)
        fields: dict[str, object] = {}
        access_fields.set(fields)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        ids = [(name, request_id.encode()) for name in form.request_id_headers]
        status: int | None = None
        self._metrics.request_began()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = b"%d" % round((time.perf_counter() - started) * 1000)
                message["headers"] = [*message["headers"], *ids, (b"openai-processing-ms", milliseconds)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server ends, and its grace time is over; uvicorn would answer in plain text.
            if status is not None:
                raise
            stopping = GatewayStopping("The gateway is being restarted.", retry_after=1)
            await error_response(stopping, scope)(scope, receive, send_with_headers)
        except Exception:
            self._log.exception("unexpected_error")
            if status is not None:
                raise  # half an answer is out: the server must cut the connection
            internal = InternalError("The gateway made a mistake; its log says more under this request id.")
            await error_response(internal, scope)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request_ended(
                method=scope["method"] if scope["method"] in _METHODS else "other",
                route=route_of(scope),
                status=status or _NO_RESPONSE,
                seconds=seconds,
            )
            path = scope["path"]
            line = {
                "method": scope["method"],
                "path": "/v1/sessions/…" if path.startswith(_SESSION_PATH) and path != _SESSION_PATH else path,
                "status": status,
                "ms": round(seconds * 1000, 1),
                **fields,
                "request_id": request_id,
            }
            log_access(line, level=logging.DEBUG if path in _PROBES else logging.INFO)


def route_of(scope: Scope) -> str:
    """A name from a bounded set: the path of the route that took the request, if one did."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
