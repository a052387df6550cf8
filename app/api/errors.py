"""Every error leaves the gateway here, as the error object of the dialect that the client speaks."""

import math
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.api.encoding import json_bytes
from app.api.reply import JsonReply, RawHeaders
from app.domain.errors import ClientClosedRequest, GatewayError, InvalidRequest, MethodNotAllowed, UnknownUrl


def error_body(error: GatewayError) -> bytes:
    """The OpenAI error object; `param` and `code` are always there, null where unknown."""
    content = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json_bytes({"error": content})


class ErrorForm(Struct, frozen=True):
    """How a dialect writes its errors, and at which requests it does.

    Args:
        body: The body of an error's response, from the error and the request's id.
        paths: The addresses that are the dialect's own, each with a slash at its end; those below them are too.
        shared_paths: In the same way, addresses that several dialects have.
        marks: Request headers, in small letters, that tell its clients from others at shared addresses.
        request_id_headers: Where its clients look for a request's id.
    """

    body: Callable[[GatewayError, str], bytes]
    paths: tuple[str, ...] = ()
    shared_paths: tuple[str, ...] = ()
    marks: frozenset[bytes] = frozenset()
    request_id_headers: tuple[bytes, ...] = (b"x-request-id",)

    def is_expected(self, scope: Scope) -> bool:
        """Does the client of this request expect errors in this form?"""
        path = f"{scope['path']}/"
        if path.startswith(self.paths):
            return True
        return path.startswith(self.shared_paths) and any(name in self.marks for name, _ in scope["headers"])


# What is spoken wherever no other dialect is.
OPENAI_ERRORS = ErrorForm(body=lambda error, _: error_body(error))


def error_form_of(scope: Scope, forms: Iterable[ErrorForm]) -> ErrorForm:
    """The first form that the request's client expects, else OpenAI's.

    The address tells, before anything else is known of a request: even a refusal at the door is said in its dialect.
    """
    for form in forms:
        if form.is_expected(scope):
            return form
    return OPENAI_ERRORS


def error_response(error: GatewayError, scope: Scope) -> JsonReply:
    """The HTTP answer for an error, with what a client needs to decide about another try.

    Args:
        scope: The request's; the outermost middleware has put its `error_form` and its `request_id` into it.
    """
    form: ErrorForm = scope.get("error_form", OPENAI_ERRORS)
    headers: RawHeaders = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return JsonReply(form.body(error, scope.get("request_id", "")), headers, error.status)


def answer(error: Exception, scope: Scope) -> Response | None:
    """The HTTP answer for an error of ours, or for a client that has left; None for any other."""
    if isinstance(error, GatewayError):
        return error_response(error, scope)
    if isinstance(error, ClientDisconnect):
        gone = ClientClosedRequest("The client closed the connection before its request was complete.")
        return error_response(gone, scope)
    return None


def install_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make the app answer all errors by `error_response`, those of the web framework included.

    Args:
        routes: All routes of the API, to tell which methods an address takes.
    """

    async def answer_own(request: Request, error: Exception) -> Response:
        response = answer(error, request.scope)
        if response is None:
            raise error
        return response

    async def answer_foreign(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        response = error_response(_own(request, error), request.scope)
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
    return methods


def _own(request: Request, error: HTTPException) -> GatewayError:
    place = f"{request.method} {request.url.path[:200]}"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return UnknownUrl(f"Invalid URL ({place}).")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"Not allowed here: {place}.")
    return InvalidRequest(str(error.detail))
