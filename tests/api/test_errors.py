"""Which dialect a request is in, and that everything which refuses it speaks that dialect."""

from collections.abc import Iterator

import httpx
import pytest

from app.api.anthropic.errors import ANTHROPIC_ERRORS
from app.api.errors import OPENAI_ERRORS, error_form_of
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
    ("path", "header", "is_anthropic"),
    [
        ("/v1/messages", b"", True),
        ("/v1/messages/count_tokens", b"", True),
        ("/v1/messages2", b"", False),
        ("/v1/chat/completions", b"anthropic-version", False),
        ("/v1/models", b"", False),
        ("/v1/models", b"anthropic-version", True),
        ("/v1/models/kimi", b"x-api-key", True),
        ("/v1/models/kimi", b"authorization", False),
    ],
)
def test_the_address_tells_the_dialect_and_a_header_where_it_is_shared(
    path: str, header: bytes, is_anthropic: bool
) -> None:
    """Messages are Anthropic's, chats OpenAI's whatever the headers say; of models both have a list."""
    scope = {"path": path, "headers": [(header, b"1")]}
    assert error_form_of(scope, [ANTHROPIC_ERRORS]) is (ANTHROPIC_ERRORS if is_anthropic else OPENAI_ERRORS)


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
    ],
)
def test_every_refusal_under_messages_is_anthropics_error(
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
