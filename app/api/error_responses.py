"""Every error leaves the gateway here, as the error object of the dialect that the client speaks."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

import structlog
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.api.limit_headers import openai_limit_headers, tightest_of
from app.api.request import ErrorForm, JsonReply, RawHeaders, RequestContext
from app.api.wire.addresses import address_hint
from app.api.wire.coding import CODINGS
from app.domain.errors import (
    ClientClosedRequest,
    GatewayError,
    InvalidRequest,
    LimitReached,
    MethodNotAllowed,
    UnknownUrl,
)
from app.domain.json import json_bytes
from app.observe.logging import access_fields

# Some end in a name that the client chose.
_LONGEST_PARAM = 100
_SAME_NAMES: Mapping[str, str] = MappingProxyType({})


def openai_error_object(error: GatewayError, names: Mapping[str, str] = _SAME_NAMES) -> dict[str, object]:
    """The OpenAI error object; `param` and `code` are always there, null where unknown.

    Args:
        names: The dialect's names of fields, by the domain's.
    """
    param = names.get(error.param, error.param) if error.param is not None else None
    return {"message": error.message, "type": error.type, "param": param, "code": error.code}


def openai_errors(*paths: str, names: Mapping[str, str] = _SAME_NAMES) -> ErrorForm:
    """The error form of an OpenAI dialect.

    Args:
        paths: See `ErrorForm`.
        names: See `openai_error_object`.
    """

    def body(error: GatewayError, _: str) -> bytes:
        return json_bytes({"error": openai_error_object(error, names)})

    return ErrorForm(body, paths, limit_headers=openai_limit_headers)


# What is spoken wherever no other dialect is.
OPENAI_ERRORS = openai_errors("/v1/chat/completions/")


def error_form_of(path: str, headers: Mapping[bytes, bytes], forms: Sequence[ErrorForm]) -> ErrorForm:
    """The first form that the request's client expects, else OpenAI's.

    The address tells before anything else is known of a request: even a refusal at the door is written in its dialect.
    Where it doesn't, the headers do.
    """
    for form in (*forms, OPENAI_ERRORS):
        if form.owns(path):
            return form
    return next((form for form in forms if form.is_marked(path, headers)), OPENAI_ERRORS)


def error_response(error: GatewayError, context: RequestContext) -> JsonReply:
    """The response for an error, with what a client needs to decide about another try. The access line says which."""
    line = access_fields.get({})
    line["error"] = context.error = error.code or error.type
    if error.param is not None:
        line["param"] = error.param[:_LONGEST_PARAM]
    headers: RawHeaders = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    if isinstance(error, LimitReached):
        if error.retry_after is not None:
            headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after * 1000)))
        if context.error_form.limit_headers is not None:
            headers += context.error_form.limit_headers(tightest_of(error.headroom))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        headers.append((b"accept-encoding", CODINGS))
    return JsonReply(context.error_form.body(error, context.request_id), headers, error.status)


def expected_error_response(error: Exception, context: RequestContext) -> JsonReply | None:
    """The response for an error of ours, or for a client that has left; None for any other."""
    if isinstance(error, GatewayError):
        return error_response(error, context)
    if isinstance(error, ClientDisconnect):
        gone = ClientClosedRequest("The client closed the connection before its request was complete.")
        return error_response(gone, context)
    return None


def refused_preflight(method: str, headers: Mapping[bytes, bytes]) -> InvalidRequest | None:
    """The error for a browser that asks whether a page of another origin may call; None for any other request."""
    origin = headers.get(b"origin", b"")[:200].decode("latin-1")
    if method != "OPTIONS" or not origin or b"access-control-request-method" not in headers:
        return None
    structlog.get_logger("kimi.access").warning(
        "origin_refused", origin=origin, meaning="add it to CORS_ORIGINS if this page may call the gateway"
    )
    return InvalidRequest(
        f"Pages of {origin!r} may not call this gateway from a browser: its operator can add them to CORS_ORIGINS.",
        code="cors_origin_not_allowed",
    )


def install_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make the app answer all errors by `error_response`, those of the web framework included.

    Args:
        routes: All routes of the API, to tell which methods an address takes.
    """

    async def answer_own(request: Request, error: Exception) -> Response:
        response = expected_error_response(error, request.scope["context"])
        if response is None:
            raise error
        return response

    async def answer_foreign(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        response = error_response(_own(request, error), request.scope["context"])
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["allow"] = ", ".join(sorted(_methods(routes, request.scope)))
        return response

    app.add_exception_handler(GatewayError, answer_own)
    app.add_exception_handler(ClientDisconnect, answer_own)
    app.add_exception_handler(HTTPException, answer_foreign)


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> set[str]:
    """The methods that the address takes; Starlette names those of one route only."""
    matching = [route for route in routes if route.matches(scope)[0] != Match.NONE]
    # Where a name goes before a placeholder, the address is the name's.
    path = getattr(matching[0], "path", None) if matching else None
    methods: set[str] = set()
    for route in matching:
        if getattr(route, "path", None) == path:
            methods |= set(getattr(route, "methods", None) or ())
    return methods | ({"HEAD"} if "GET" in methods else set())


def _own(request: Request, error: HTTPException) -> GatewayError:
    place = f"{request.method} {request.url.path[:200]}"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return UnknownUrl(f"Invalid URL ({place}).{address_hint(request.url.path)}")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        if refusal := refused_preflight(request.method, request.scope["context"].headers):
            return refusal
        return MethodNotAllowed(f"Method not allowed ({place}).")
    return InvalidRequest(str(error.detail))
