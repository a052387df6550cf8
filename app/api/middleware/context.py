"""The outermost layer: every request gets a context and a line in the log, and every fault an answer."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.error_responses import error_form_of, error_response
from app.api.refusals import Refusals
from app.api.request import ErrorForm, RequestContext
from app.api.wire.addresses import (
    DOCUMENTS,
    GENERATE_STREAM,
    PAGES,
    ModelAddress,
    TrustedProxies,
    googles_address,
    meant_address,
    model_address,
)
from app.domain.errors import GatewayStopping, InternalError
from app.domain.request_ids import RequestIds
from app.observe.logging import AccessLog
from app.observe.metrics import Metrics

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What is counted for a request that was never answered.
_NO_RESPONSE = 499
# Asked every few seconds by whatever watches over the process.
_PROBES = frozenset({"/health", "/ready"})
# A session's id is its user's, often an e-mail address: what comes after this stays out of the log.
_SESSIONS = "/sessions/"


class RequestContextMiddleware:
    """Puts a `RequestContext` into the scope, for all layers that come later.

    It takes the client's `X-Request-ID` if that is sane, or makes one. An exception that nobody expected becomes a 500
    that says nothing about it; the log has the rest.

    Args:
        metrics: Told of every request.
        error_forms: The dialects' forms of errors, besides OpenAI's; the first that fits a request is its own.
        endpoints: Where POSTs are answered by responses that begin by the context, and the forms of their errors.
        proxies: Those that may say below which address they serve the gateway.
        refusals: Told of POSTs to those endpoints that were refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        error_forms: Sequence[ErrorForm],
        endpoints: Mapping[str, ErrorForm],
        proxies: TrustedProxies,
        refusals: Refusals,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._error_forms = tuple(error_forms)
        self._endpoints = dict(endpoints)
        # A path that looks like one of the others names a model in braces, which has to be read first.
        self._fixed = {path: form for path, form in endpoints.items() if "{" not in path}
        self._proxies = proxies
        self._refusals = refusals
        self._ids = RequestIds()
        self._log = structlog.get_logger("kimi.access")
        self._access_log = AccessLog("kimi.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        headers: dict[bytes, bytes] = dict(reversed([*scope["headers"]]))
        given = headers.get(b"x-request-id")
        request_id = given.decode() if given and _SANE_ID.fullmatch(given) else self._ids.new()
        form = self._fixed.get(path) if method == "POST" else None
        asked: ModelAddress | None = None
        if form is None:
            path, asked = self._address(scope, headers)
            form = self._endpoints.get(scope["path"]) if method == "POST" else None
        scope["context"] = context = RequestContext(
            headers, request_id, form or error_form_of(scope["path"], headers, self._error_forms)
        )
        if asked is not None:
            context.asked, context.model = asked, asked.model
            context.wants_stream = asked.endpoint == GENERATE_STREAM
        shown = path
        if form is None:
            send = context.completing(send)
            shown = _without_session(path)
        line = self._access_log.open(method, shown, request_id)
        self._metrics.request_began()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends, and its grace time is over; uvicorn would answer in plain text.
            if context.status is not None:
                raise
            stopping = GatewayStopping("The gateway is being restarted.", retry_after=1)
            await error_response(stopping, context)(scope, receive, send)
        except Exception:
            self._log.exception("unexpected_error")
            if context.status is not None:
                raise  # half an answer is out: the server must cut the connection
            internal = InternalError("Internal error. The gateway's log has the details under this request id.")
            await error_response(internal, context)(scope, receive, send)
        finally:
            seconds = context.seconds
            self._metrics.request_ended(
                method=method if method in _METHODS else "other",
                route=route_of(scope),
                status=context.status or _NO_RESPONSE,
                seconds=seconds,
            )
            level = logging.DEBUG if path in _PROBES else logging.INFO
            self._access_log.close(line, context.status, seconds, level)
            if form is not None and context.error is not None and not context.became_call:
                self._refusals.note(scope["path"], context)

    def _address(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[str, ModelAddress | None]:
        """The address that a request means, which all other layers go by from here on.

        If it names a model, they go by what is the same for all models.
        """
        scope["path"] = path = googles_address(meant_address(scope["path"]), headers)
        asked = model_address(path, scope.get("query_string", b"")) if scope["method"] == "POST" else None
        if asked is not None:
            scope["path"] = asked.endpoint
        has_pages = path in DOCUMENTS or path.startswith(PAGES)
        if has_pages and (given := headers.get(b"x-forwarded-prefix")):
            scope["root_path"] = self._proxies.prefix(given, scope.get("client"))
        if has_pages and (given := headers.get(b"x-forwarded-for")):
            scope["client"] = self._proxies.client(given, scope.get("client"))
        return path, asked


def route_of(scope: Scope) -> str:
    """A name from a bounded set: the path of the route that took the request, if one did."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _without_session(path: str) -> str:
    before, mark, session = path.partition(_SESSIONS)
    return f"{before}{mark}…" if session else path
