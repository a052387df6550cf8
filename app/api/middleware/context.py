"""The outermost layer: every request gets an id, a clock and a line in the log, and every fault an answer."""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Sequence

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import ErrorForm, error_form_of, error_response
from app.api.headers import headers_by_name
from app.api.ids import unique_id
from app.api.reply import Beginning
from app.domain.errors import GatewayStopping, InternalError
from app.observe.logging import AccessLog
from app.observe.metrics import Metrics

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")

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
    expected becomes a 500 that says nothing about it; the log has the rest. Into the scope go `headers_by_name`,
    `request_id`, `error_form` and `beginning`, for all who come later.

    Args:
        error_forms: Those besides OpenAI's; all errors of a request are written in the form that is found here.
        own_paths: Addresses at which a POST is answered by responses of our own and no others. See `Beginning`.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, error_forms: Sequence[ErrorForm] = (), own_paths: Collection[str] = ()
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._error_forms = tuple(error_forms)
        self._own_paths = frozenset(own_paths)
        self._log = structlog.get_logger("kimi.access")
        self._access_log = AccessLog("kimi.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method, path = scope["method"], scope["path"]
        scope["headers_by_name"] = headers = headers_by_name(scope["headers"])
        scope["request_id"] = request_id = _request_id(headers.get(b"x-request-id"))
        scope["error_form"] = form = error_form_of(scope, self._error_forms)
        scope["beginning"] = beginning = Beginning(started, request_id, form.request_id_headers)
        if method != "POST" or path not in self._own_paths:
            send = beginning.added(send)
        line = self._access_log.open(method, _without_session(path), request_id)
        self._metrics.request_began()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends, and its grace time is over; uvicorn would answer in plain text.
            if beginning.status is not None:
                raise
            stopping = GatewayStopping("The gateway is being restarted.", retry_after=1)
            await error_response(stopping, scope)(scope, receive, send)
        except Exception:
            self._log.exception("unexpected_error")
            if beginning.status is not None:
                raise  # half an answer is out: the server must cut the connection
            internal = InternalError("The gateway made a mistake; its log says more under this request id.")
            await error_response(internal, scope)(scope, receive, send)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request_ended(
                method=method if method in _METHODS else "other",
                route=route_of(scope),
                status=beginning.status or _NO_RESPONSE,
                seconds=seconds,
            )
            level = logging.DEBUG if path in _PROBES else logging.INFO
            self._access_log.close(line, beginning.status, seconds, level)


def route_of(scope: Scope) -> str:
    """A name from a bounded set: the path of the route that took the request, if one did."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _without_session(path: str) -> str:
    return "/v1/sessions/…" if path.startswith(_SESSION_PATH) and path != _SESSION_PATH else path


def _request_id(given: bytes | None) -> str:
    return given.decode() if given and _SANE_ID.fullmatch(given) else unique_id("req_", 16)
