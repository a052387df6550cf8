"""Errors as Anthropic's API writes them."""

from pydantic_core import ErrorDetails

from app.api.limit_headers import anthropic_limit_headers
from app.api.request import ErrorForm
from app.api.wire.faults import fields_of
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest
from app.domain.json import json_bytes

# By HTTP status; every other 4xx is an invalid request, every other 5xx the API's own fault. A 503 stays a 503 where
# Anthropic says 529: proxies and monitoring know what it means, and the SDKs try both again.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The error object. There is no `param` in it: a place that the message doesn't name is put before it.

    The gateway's own code is in `details.error_code`, where the SDKs read one.
    """
    content: dict[str, object] = {"type": error_type(error), "message": _message(error)}
    if error.code is not None:
        content["details"] = {"error_code": error.code}
    document = {"type": "error", "error": content, "request_id": request_id or None}
    return json_bytes(document)


def error_type(error: GatewayError) -> str:
    """The kind of error, by its HTTP status."""
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def anthropic_fault(error: ErrorDetails) -> InvalidRequest:
    """The error for what is wrong with a body, its place written as `messages.0.content.1.text`."""
    param = ".".join(map(str, fields_of(error["loc"])))
    return InvalidRequest(f"{param}: {error['msg']}.", param=param)


def _message(error: GatewayError) -> str:
    if isinstance(error, ContextTooLong):
        # Clients know by these words, and by nothing else, that a shorter conversation would be answered.
        return f"prompt is too long: {error.message}"
    if error.param and error.param not in error.message:
        return f"{error.param}: {error.message}"
    return error.message


ANTHROPIC_ERRORS = ErrorForm(
    body=error_body,
    paths=("/v1/messages/",),
    marks=frozenset({b"anthropic-version"}),
    shared_paths=("/v1/models/",),
    shared_marks=frozenset({b"x-api-key"}),
    request_id_headers=(b"x-request-id", b"request-id"),
    limit_headers=anthropic_limit_headers,
)
