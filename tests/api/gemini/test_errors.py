"""Errors in Google's shape."""

import inspect
import json
from typing import Any

import pytest

from app.api.gemini.errors import error_body
from app.domain import errors
from app.domain.errors import GatewayError, InvalidRequest, LimitReached

KIND = "type.googleapis.com/google.rpc."


def written(error: GatewayError) -> dict[str, Any]:
    """The error object, and its details by their types."""
    document: dict[str, Any] = json.loads(error_body(error, "req_1"))["error"]
    details = {detail.pop("@type").removeprefix(KIND): detail for detail in document["details"]}
    return {**document, "details": details}


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("InvalidRequest", 400, "INVALID_ARGUMENT"),
        ("BodyTooLarge", 413, "INVALID_ARGUMENT"),
        ("InvalidApiKey", 401, "UNAUTHENTICATED"),
        ("MissingScope", 403, "PERMISSION_DENIED"),
        ("ModelNotFound", 404, "NOT_FOUND"),
        ("MethodNotAllowed", 405, "UNIMPLEMENTED"),
        ("SessionBusy", 409, "ABORTED"),
        ("LimitReached", 429, "RESOURCE_EXHAUSTED"),
        ("UpstreamRateLimited", 429, "RESOURCE_EXHAUSTED"),
        ("InternalError", 500, "INTERNAL"),
        ("UpstreamKeyRejected", 502, "INTERNAL"),
        ("GatewayOverloaded", 503, "UNAVAILABLE"),
        ("UpstreamTimeout", 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_each_status_has_its_word(name: str, code: int, status: str) -> None:
    """The word follows from the HTTP status, as Google maps them."""
    error = written(getattr(errors, name)("So it is."))
    assert (error["code"], error["status"], error["message"]) == (code, status, "So it is.")


def test_every_error_says_why() -> None:
    """Each error of the tree has our code as its reason, and the request's id."""
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, GatewayError):
            error = kind("So it is.")
            info = written(error)["details"]["ErrorInfo"]
            assert info["reason"] == (error.code or error.type)
            assert info["metadata"] == {"requestId": "req_1"}


@pytest.mark.parametrize(("seconds", "delay"), [(0.0004, "0.001s"), (1.5, "1.5s"), (60, "60s")])
def test_when_to_try_again(seconds: float, delay: str) -> None:
    """Google's clients read it from a detail; it is never too early."""
    details = written(LimitReached("Too many.", retry_after=seconds))["details"]
    assert details["RetryInfo"] == {"retryDelay": delay}
    assert "RetryInfo" not in written(LimitReached("Too many."))["details"]


def test_the_field_at_fault() -> None:
    """It is named as this dialect names it."""
    details = written(InvalidRequest("Too long.", param="messages"))["details"]
    assert details["BadRequest"] == {"fieldViolations": [{"field": "contents", "description": "Too long."}]}
