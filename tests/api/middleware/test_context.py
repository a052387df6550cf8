"""How every response begins, whoever makes it."""

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
MESSAGES = {**CHAT, "model": "kimi", "max_tokens": 10}
CONTENTS = {"contents": [{"parts": [{"text": "Hello"}]}]}
OURS = ("x-request-id", "openai-processing-ms")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", CHAT, 200),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200),
        ("POST", "/v1/chat/completions", {}, 400),
        ("POST", "/v1/chat/completions%0A", CHAT, 200),
        ("POST", "/v1/completions", {"prompt": "Hello"}, 200),
        ("POST", "/v1/messages", MESSAGES, 200),
        ("POST", "/v1/messages", {**MESSAGES, "stream": True}, 200),
        ("POST", "/v1/messages/count_tokens", MESSAGES, 200),
        ("POST", "/v1/responses", {"input": "Hello"}, 200),
        ("POST", "/v1beta/models/kimi:generateContent", CONTENTS, 200),
        ("POST", "/v1beta/models/kimi:streamGenerateContent", CONTENTS, 200),
        ("POST", "/v1beta/models/kimi:countTokens", CONTENTS, 200),
        ("POST", "/v1beta/models/{model}:generateContent", CONTENTS, 404),
        ("POST", "/v1beta/models/kimi:countTokens%0A", CONTENTS, 200),
        ("GET", "/v1beta/models", {}, 200),
        ("POST", "/v1/nothing", {}, 404),
        ("GET", "/v1/chat/completions", {}, 405),
        ("GET", "/v1/models", {}, 200),
        ("GET", "/docs", {}, 200),
    ],
)
def test_every_response_has_the_request_s_id_once(
    client: httpx.Client, method: str, path: str, body: dict[str, object], status: int
) -> None:
    """The gateway's own responses and the web framework's, whole, streamed or an error, past the router or by it."""
    response = client.request(method, path, json=body, headers={"X-Request-ID": "request-of-mine"})
    assert response.status_code == status
    assert [len(response.headers.get_list(name)) for name in OURS] == [1, 1]
    assert response.headers["x-request-id"] == "request-of-mine"


def test_a_browser_s_question_is_answered_with_an_id_too(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """A preflight never comes to a route; the answer to the request itself has the browser's headers and ours."""
    with start_gateway(cors_origins="https://chat.example") as gateway, gateway.client() as http:
        origin = {"Origin": "https://chat.example"}
        asked = http.options("/v1/chat/completions", headers={**origin, "Access-Control-Request-Method": "POST"})
        answered = http.post("/v1/chat/completions", json=CHAT, headers=origin)
    for response in (asked, answered):
        assert response.status_code == 200
        assert [len(response.headers.get_list(name)) for name in OURS] == [1, 1]
        assert response.headers["access-control-allow-origin"] == "https://chat.example"
