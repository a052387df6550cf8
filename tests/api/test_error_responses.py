"""Which dialect a request is in, and that everything which refuses it speaks that dialect."""

from collections.abc import Iterator

import httpx
import pytest

from app.api.anthropic.errors import ANTHROPIC_ERRORS
from app.api.completions.errors import COMPLETIONS_ERRORS
from app.api.error_responses import OPENAI_ERRORS, error_form_of, openai_error_object
from app.api.gemini.errors import GEMINI_ERRORS
from app.api.request import ErrorForm
from app.api.responses.errors import RESPONSES_ERRORS
from app.domain.errors import GatewayError, InvalidRequest, MessageRefused
from app.observe.loop_lag import LoopLag
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway

VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def stranger(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """An HTTP client without a key."""
    with httpx.Client(base_url=gateway.base_url, trust_env=False) as http:
        yield http


@pytest.mark.parametrize(
    ("path", "header", "form"),
    [
        ("/v1/messages", b"", ANTHROPIC_ERRORS),
        ("/v1/messages/count_tokens", b"", ANTHROPIC_ERRORS),
        ("/v1/messages2", b"", OPENAI_ERRORS),
        ("/v1/chat/completions", b"anthropic-version", OPENAI_ERRORS),
        ("/v1/models", b"", OPENAI_ERRORS),
        ("/v1/models", b"anthropic-version", ANTHROPIC_ERRORS),
        ("/v1/models/kimi", b"x-api-key", ANTHROPIC_ERRORS),
        ("/v1/models/kimi", b"authorization", OPENAI_ERRORS),
        ("/v1/responses", b"anthropic-version", RESPONSES_ERRORS),
        ("/v1/responses/resp_1/input_items", b"", RESPONSES_ERRORS),
        ("/v1/completions", b"", COMPLETIONS_ERRORS),
        ("/v1/nothing", b"x-api-key", OPENAI_ERRORS),
        ("/v1/nothing", b"anthropic-version", ANTHROPIC_ERRORS),
        ("/v1/sessions", b"anthropic-version", ANTHROPIC_ERRORS),
        ("/nothing", b"anthropic-version", ANTHROPIC_ERRORS),
        ("/v1beta/models", b"x-api-key", GEMINI_ERRORS),
        ("/nothing", b"x-goog-api-key", GEMINI_ERRORS),
        ("/v1/chat/completions", b"x-goog-api-key", OPENAI_ERRORS),
    ],
)
def test_the_address_tells_the_dialect_and_a_header_where_it_is_shared(
    path: str, header: bytes, form: ErrorForm
) -> None:
    """Messages are Anthropic's, chats OpenAI's whatever the headers say; of models both have a list."""
    forms = [ANTHROPIC_ERRORS, OPENAI_ERRORS, RESPONSES_ERRORS, COMPLETIONS_ERRORS, GEMINI_ERRORS]
    assert error_form_of(path, {header: b"1"}, forms) is form


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GatewayError("a"), {"message": "a", "type": "server_error", "param": None, "code": None}),
        (
            MessageRefused("b", param="messages", code="content_filter"),
            {"message": "b", "type": "invalid_request_error", "param": "input", "code": "content_filter"},
        ),
        (
            InvalidRequest("c", param="tools"),
            {"message": "c", "type": "invalid_request_error", "param": "tools", "code": None},
        ),
    ],
)
def test_an_openai_error_has_all_four_fields(error: GatewayError, told: dict[str, object]) -> None:
    """They are null where unknown, and a field that the dialect has another name for is told by that."""
    assert openai_error_object(error, {"messages": "input"}) == told


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("POST", "/v1/messages?beta=true", {}, 401, "authentication_error"),
        ("POST", "/v1/messages", {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("GET", "/v1/models", VERSION, 401, "authentication_error"),
        ("GET", "/v1/messages/unknown", {"x-api-key": ALICE_KEY}, 404, "not_found_error"),
        ("GET", "/v1/messages/count_tokens", {"x-api-key": ALICE_KEY}, 405, "invalid_request_error"),
        ("DELETE", "/v1/messages", {"x-api-key": ALICE_KEY}, 405, "invalid_request_error"),
        ("PUT", "/v1/messages", {"x-api-key": ALICE_KEY}, 413, "request_too_large"),
        ("GET", "/v1/files", {**VERSION, "x-api-key": ALICE_KEY}, 404, "not_found_error"),
        ("POST", "/v1/files", VERSION, 401, "authentication_error"),
        ("PUT", "/v1/sessions", {**VERSION, "x-api-key": ALICE_KEY}, 405, "invalid_request_error"),
    ],
)
def test_every_refusal_of_anthropics_clients_is_anthropics_error(
    stranger: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    """Keys, unknown addresses, methods and sizes are refused in Anthropic's shape, with the id that the log has."""
    body = bytes(2_000_000) if status == 413 else b""
    response = stranger.request(method, path, headers={**headers, "X-Request-ID": "request-of-mine"}, content=body)
    document = response.json()
    assert response.status_code == status
    assert (document["type"], document["error"]["type"]) == ("error", kind)
    assert document["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert document["request_id"] == "request-of-mine"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "word"),
    [
        ("POST", "/v1beta/models/kimi:generateContent", {}, 401, "UNAUTHENTICATED"),
        ("GET", "/v1/models", {"x-goog-api-key": "wrong"}, 401, "UNAUTHENTICATED"),
        ("GET", "/v1beta/files", {"x-goog-api-key": ALICE_KEY}, 404, "NOT_FOUND"),
        ("POST", "/upload/v1beta/files", {"x-goog-api-key": ALICE_KEY}, 404, "NOT_FOUND"),
        ("POST", "/v1beta/models/kimi:predict", {"x-goog-api-key": ALICE_KEY}, 404, "NOT_FOUND"),
        ("GET", "/v1beta/models/kimi:countTokens", {"x-goog-api-key": ALICE_KEY}, 405, "UNIMPLEMENTED"),
        ("PUT", "/v1beta/models/kimi", {"x-goog-api-key": ALICE_KEY}, 405, "UNIMPLEMENTED"),
        ("POST", "/v1/models/kimi:countTokens", {"x-goog-api-key": ALICE_KEY}, 413, "INVALID_ARGUMENT"),
    ],
)
def test_every_refusal_of_googles_clients_is_googles_error(
    stranger: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, word: str
) -> None:
    """Keys, unknown addresses, methods and sizes are refused in Google's shape, with the id that the log has."""
    body = bytes(2_000_000) if status == 413 else b""
    response = stranger.request(method, path, headers={**headers, "X-Request-ID": "request-of-mine"}, content=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (status, status, word)
    assert error["details"][0]["metadata"] == {"requestId": response.headers["x-request-id"]}
    assert response.headers["x-request-id"] == "request-of-mine"


def test_a_gateway_that_is_late_says_so_in_each_dialect(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load is shed with a retry time and the error of the address that was called."""

    async def late(self: LoopLag) -> None:
        self.latest = 5.0

    monkeypatch.setattr(LoopLag, "watch", late)
    with start_gateway(max_loop_lag_seconds=1) as gateway, gateway.client() as http:
        messages = http.post("/v1/messages", json={})
        chat = http.post("/v1/chat/completions", json={})
    assert (messages.status_code, messages.json()["error"]["type"]) == (503, "overloaded_error")
    assert messages.json()["error"]["details"] == {"error_code": "gateway_overloaded"}
    assert messages.headers["retry-after"]
    assert (chat.status_code, chat.json()["error"]["code"]) == (503, "gateway_overloaded")
    assert "request-id" not in chat.headers
