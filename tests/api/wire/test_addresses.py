"""Addresses as clients and proxies write them."""

import httpx
import pytest

from app.api.wire.addresses import (
    GENERATE,
    GOOGLE_MARKS,
    ModelAddress,
    TrustedProxies,
    address_hint,
    googles_address,
    meant_address,
    model_address,
)
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
MESSAGES = {**HELLO, "model": "kimi", "max_tokens": 10}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (CHAT, CHAT),
        ("/chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("//v1//chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/v1/chat/completions/chat/completions", CHAT),
        ("/v1/chat/completions/v1/chat/completions", CHAT),
        ("/v1/models/chat/completions", CHAT),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/v1/messages/v1/messages", "/v1/messages"),
        ("/messages", "/v1/messages"),
        ("/v1/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/responses", "/v1/responses"),
        ("/v1/responses/responses/", "/v1/responses"),
        ("/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("/completions", "/v1/completions"),
        ("/models", "/v1/models"),
        ("/embeddings", "/v1/embeddings"),
        ("/v1/v1/audio//transcriptions/", "/v1/audio/transcriptions"),
        ("/images/edits", "/v1/images/edits"),
        ("/v1/images", "/v1/images"),
        ("/v1/models/", "/v1/models"),
        ("/v1/models/org/model", "/v1/models/org/model"),
        ("/models/org/model", "/v1/models/org/model"),
        ("/v1/models/v1", "/v1/models/v1"),
        ("/v1/sessions/", "/v1/sessions"),
        ("/v1/sessions/a//chat/completions/", "/v1/sessions/a//chat/completions/"),
        ("/health/", "/health"),
        ("//docs", "/docs"),
        ("//", "/"),
        ("/metrics/", "/metrics/"),
        ("/v1/files", "/v1/files"),
        ("/v1/messages/batches", "/v1/messages/batches"),
        ("/v1/chat/completions/chatcmpl-1", "/v1/chat/completions/chatcmpl-1"),
        ("/v1/chat", "/v1/chat"),
        ("/v1beta/models", "/v1beta/models"),
        ("/v1beta/models/kimi:countTokens\n", "/v1beta/models/kimi:countTokens"),
        ("/v1/embeddings\n\n", "/v1/embeddings"),
        ("/v1/v1beta/models/", "/v1beta/models"),
        ("//v1beta/v1beta/models/org/model", "/v1beta/models/org/model"),
        ("/v1alpha/models/kimi", "/v1beta/models/kimi"),
        ("/v1beta/files", "/v1beta/files"),
        ("/unknown/chat/completions", "/unknown/chat/completions"),
    ],
)
def test_what_clients_make_of_a_base_url_leads_where_they_mean(path: str, meant: str) -> None:
    """Slashes, a missing or doubled `/v1` and an end too many are put right; ids and unknown addresses stay."""
    assert meant_address(path) == meant


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/kimi:generateContent", "kimi"),
        ("/v1/models/kimi:generateContent", "kimi"),
        ("/models/kimi:generateContent/", "kimi"),
        ("/v1/v1beta/models/org/model:7b:generateContent", "org/model:7b"),
        ("/v1beta/models/{model}:generateContent", "{model}"),
        ("/v1beta/models/:generateContent", None),
        ("/v1beta/models/kimi", None),
        ("/v1/chat/completions", None),
        ("/v1beta/tunedModels/a:generateContent", None),
    ],
)
def test_an_address_names_a_model(path: str, model: str | None) -> None:
    """And what is asked of it: so many addresses are one endpoint's."""
    found = model_address(path, b"alt=sse")
    assert found == (None if model is None else ModelAddress(GENERATE, model, b"alt=sse"))


def test_the_models_have_one_address_for_several_dialects() -> None:
    """Google's clients are told from others by their headers."""
    for header in GOOGLE_MARKS:
        assert googles_address("/v1/models/org/model", [header]) == "/v1beta/models/org/model"
        assert googles_address("/v1/models", [header]) == "/v1beta/models"
        assert googles_address("/v1/modelsque", [header]) == "/v1/modelsque"
    assert googles_address("/v1/models", [b"x-api-key"]) == "/v1/models"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/openai/deployments/kimi/chat/completions", " Did you mean /v1/chat/completions?"),
        ("/v1beta/models/", " Did you mean /v1/models?"),
        ("/v1beta/embeddings", " Did you mean /v1/embeddings?"),
        ("/files", " The API's addresses begin with /v1/."),
        ("/v1/files", ""),
    ],
)
def test_an_unknown_address_is_answered_with_what_is_known(path: str, hint: str) -> None:
    """The right address, if the end tells it; else where the API's addresses are."""
    assert address_hint(path) == hint


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chat/completions", HELLO),
        ("POST", "/v1/v1/chat/completions", {**HELLO, "stream": True}),
        ("POST", "/v1/messages/v1/messages", MESSAGES),
        ("POST", "/responses/", {"input": "Hello"}),
        ("GET", "/models", None),
        ("GET", "/v1/models/", None),
        ("GET", "/health/", None),
    ],
)
def test_a_wrong_address_is_served(client: httpx.Client, method: str, path: str, body: dict[str, object]) -> None:
    """Calls, lists and health are answered, with the id that every response has once."""
    response = client.request(method, path, json=body)
    assert response.status_code == 200
    assert len(response.headers.get_list("x-request-id")) == 1


def test_an_unknown_address_tells_the_right_one(client: httpx.Client) -> None:
    """The 404 of an address that may mean several things names one."""
    error = client.post("/openai/deployments/kimi/chat/completions", json=HELLO).json()["error"]
    assert error["code"] == "unknown_url"
    assert error["message"].endswith("Did you mean /v1/chat/completions?")


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/docs", "/openapi.json", "/v1/models", "/v1/sessions"])
def test_head_is_where_get_is(client: httpx.Client, path: str) -> None:
    """HEAD has the status and the length that GET has, and no body."""
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_what_is_not_there(client: httpx.Client) -> None:
    """It is refused like GET; where only POST is, there is no HEAD, except where Anthropic's clients look for one."""
    assert [client.head(path).status_code for path in ("/v1/nothing", "/v1/models/no", CHAT)] == [404, 404, 405]
    assert client.head("/v1/messages").status_code == 200


@pytest.mark.parametrize(
    ("addresses", "client", "header", "prefix"),
    [
        ("127.0.0.1", ("127.0.0.1", 1), b"/kimi", "/kimi"),
        ("127.0.0.1", ("127.0.0.1", 1), b"/kimi/api/", "/kimi/api"),
        ("10.0.0.0/8, ::1", ("10.1.2.3", 1), b"/kimi", "/kimi"),
        ("10.0.0.0/8, ::1", ("::1", 1), b"/kimi", "/kimi"),
        ("*", None, b"/kimi", "/kimi"),
        ("10.0.0.0/8", ("127.0.0.1", 1), b"/kimi", ""),
        ("127.0.0.1", None, b"/kimi", ""),
        ("127.0.0.1", ("testclient", 1), b"/kimi", ""),
        ("somewhere", ("127.0.0.1", 1), b"/kimi", ""),
        ("*", None, b"//evil.example", ""),
        ("*", None, b"https://evil.example", ""),
        ("*", None, b"/a'+alert(1)+'", ""),
        ("*", None, b"/", ""),
    ],
)
def test_a_prefix_is_believed_of_trusted_proxies(
    addresses: str, client: tuple[str, int] | None, header: bytes, prefix: str
) -> None:
    """A path, and nothing else, of a proxy that FORWARDED_ALLOW_IPS names."""
    assert TrustedProxies(addresses).prefix(header, client) == prefix


def test_behind_a_prefix_every_address_is_below_it(gateway: LiveGateway) -> None:
    """The documentation, what it says of servers, and the hint of the front page; other addresses stay as they are."""
    with httpx.Client(base_url=gateway.base_url, trust_env=False, headers={"X-Forwarded-Prefix": "/kimi"}) as http:
        assert '"/kimi/openapi.json"' in http.get("/docs").text.replace("'", '"')
        assert http.get("/openapi.json").json()["servers"] == [{"url": "/kimi"}]
        assert http.get("/").json()["openai_base_url"] == "/kimi/v1"
        headers = {"Authorization": f"Bearer {ALICE_KEY}"}
        assert http.get("/v1/models", headers=headers).status_code == 200
        assert http.post("/v1/chat/completions", headers=headers, json=HELLO).status_code == 200
        assert http.get("/kimi/metrics", headers=headers).status_code == 404
    assert "servers" not in httpx.get(f"{gateway.base_url}/openapi.json", trust_env=False).json()


def test_a_stranger_s_prefix_is_not_believed(start_gateway: StartGateway) -> None:
    """Whoever is not named in FORWARDED_ALLOW_IPS changes nothing."""
    with start_gateway(forwarded_allow_ips="10.0.0.1") as gateway, gateway.client() as http:
        assert http.get("/", headers={"X-Forwarded-Prefix": "/kimi"}).json()["openai_base_url"] == "/v1"
