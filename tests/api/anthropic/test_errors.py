"""Errors in Anthropic's shape."""

import inspect
import json

import pytest
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st

from app.api.anthropic.errors import error_body
from app.domain import errors
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest, ModelNotFound, UpstreamTimeout
from tests.domain.strategies import UNTIMED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("InvalidRequest", "invalid_request_error"),
        ("ContextTooLong", "invalid_request_error"),
        ("InvalidApiKey", "authentication_error"),
        ("ModelNotFound", "not_found_error"),
        ("SessionNotFound", "not_found_error"),
        ("UnknownUrl", "not_found_error"),
        ("MethodNotAllowed", "invalid_request_error"),
        ("SessionBusy", "invalid_request_error"),
        ("BodyTooLarge", "request_too_large"),
        ("HeadersTooLarge", "invalid_request_error"),
        ("UpstreamRateLimited", "rate_limit_error"),
        ("InternalError", "api_error"),
        ("SiteChanged", "api_error"),
        ("GatewayOverloaded", "overloaded_error"),
        ("UpstreamUnavailable", "overloaded_error"),
        ("UpstreamTimeout", "timeout_error"),
    ],
)
def test_each_status_has_its_type(name: str, kind: str) -> None:
    """The type follows from the HTTP status, as in Anthropic's documentation."""
    assert json.loads(error_body(getattr(errors, name)("So it is."), ""))["error"]["type"] == kind


def test_the_sdk_reads_every_error() -> None:
    """Each error of the tree is a valid error of the SDK's types, with our code as its error code."""
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, GatewayError) and kind.status != 413:
            document = json.loads(error_body(kind("So it is."), "req_1"))
            read = ErrorResponse.model_validate(document)
            assert (read.request_id, read.error.message.removeprefix("prompt is too long: ")) == ("req_1", "So it is.")
            assert document["error"].get("details") == ({"error_code": kind.code} if kind.code else None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InvalidRequest("Not so.", param="messages.0.content"), "messages.0.content: Not so."),
        (InvalidRequest("messages.0: not so.", param="messages.0"), "messages.0: not so."),
        (InvalidRequest("Not so."), "Not so."),
        (ContextTooLong("It takes 9, not 10.", param="messages"), "prompt is too long: It takes 9, not 10."),
    ],
)
def test_the_message_names_the_place(error: GatewayError, message: str) -> None:
    """A fault's place is in the message, once; a prompt that is too long is named in the words that clients know."""
    assert json.loads(error_body(error, ""))["error"]["message"] == message


@UNTIMED
@given(message=st.text(st.characters(codec=None)))
def test_any_message_can_be_told(message: str) -> None:
    """Whatever an error says, its body is JSON; an unknown request id is null."""
    document = json.loads(error_body(UpstreamTimeout(message), ""))
    assert document["error"]["message"] == message.encode("utf-8", "replace").decode()
    assert document["request_id"] is None


def test_a_code_of_its_own_is_told() -> None:
    """The code of the error, not of its class, is what the SDK gets."""
    document = json.loads(error_body(ModelNotFound("No.", code="no_such_route"), ""))
    assert document["error"]["details"] == {"error_code": "no_such_route"}
