"""Who comes in, and who doesn't."""

import http.client
import json
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import StartGateway
from tests.live import ALICE_KEY, BOB_KEY, LiveGateway

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong-key",
        f"Basic {ALICE_KEY}",
        f"Bearer Basic {ALICE_KEY}",
        f"{ALICE_KEY} {BOB_KEY}",
        f"Bearer {ALICE_KEY[:-1]}",
        f"Bearer {ALICE_KEY}x",
        f"Bearer {ALICE_KEY},{BOB_KEY}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/sessions", "/v1/unknown"])
def test_without_a_valid_key_there_is_a_401_in_the_envelope(
    gateway: LiveGateway, authorization: str | None, path: str
) -> None:
    """A missing, malformed or wrong key is refused as OpenAI refuses it, and the key isn't repeated."""
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{gateway.base_url}{path}", headers=headers, trust_env=False)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (401, "invalid_api_key", None)
    assert response.headers["x-request-id"]
    assert ALICE_KEY[:-1] not in response.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("key", [ALICE_KEY, BOB_KEY])
def test_every_key_opens_whatever_the_case_of_the_scheme(gateway: LiveGateway, scheme: str, key: str) -> None:
    """All keys of API_MASTER_KEY work, and the scheme's case doesn't matter."""
    headers = {"Authorization": f"{scheme} {key}"}
    assert httpx.get(f"{gateway.base_url}/v1/models", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": ALICE_KEY}, 200),
        ({"x-api-key": f"{ALICE_KEY}x"}, 401),
        ({"x-api-key": ALICE_KEY, "Authorization": "Bearer another-service"}, 200),
        ({"x-api-key": "another-service", "Authorization": f"Bearer {BOB_KEY}"}, 200),
        ({"x-api-key": "wrong", "Authorization": "Bearer wrong"}, 401),
        ({"x-api-key": "", "Authorization": "Bearer"}, 401),
        ({"api-key": BOB_KEY}, 200),
        ({"api-key": BOB_KEY, "x-api-key": "another-service"}, 200),
        ({"api-key": "wrong"}, 401),
        ({"x-goog-api-key": BOB_KEY}, 200),
        ({"x-goog-api-key": BOB_KEY, "x-api-key": "another-service", "api-key": ""}, 200),
        # As nginx counts them.
        ({"x-goog-api-key": BOB_KEY, "api-key": "another-service"}, 401),
        ({"Authorization": ALICE_KEY}, 200),
        ({"Authorization": f"Bearer Bearer {ALICE_KEY}"}, 200),
        ({"Authorization": "Bearer"}, 401),
    ],
)
def test_a_key_may_come_in_every_place_where_clients_put_it(
    gateway: LiveGateway, headers: dict[str, str], status: int
) -> None:
    """Headers of Anthropic's, Azure's or Google's, no `Bearer` or two of them; of several keys one has to be right."""
    assert httpx.get(f"{gateway.base_url}/v1/sessions", headers=headers, trust_env=False).status_code == status


@pytest.mark.parametrize("path", ["/v1beta/models", "/v1beta/models/kimi:generateContent", "/v1/models"])
def test_a_key_in_the_url_is_none(gateway: LiveGateway, path: str) -> None:
    """URLs are kept in logs: whoever sends one so, as Google's documents do, is told how else."""
    # Without httpx, which logs the addresses that it asks for.
    connection = http.client.HTTPConnection(urlsplit(gateway.base_url).netloc)
    connection.request("POST" if "generate" in path else "GET", f"{path}?key={ALICE_KEY}")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    message = json.loads(text)["error"]["message"]
    assert response.status == 401
    assert message.startswith("A key in the URL isn't taken")
    assert ("x-goog-api-key: KEY" in message) == path.startswith("/v1beta")
    assert ALICE_KEY not in text


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/docs", "/openapi.json"])
def test_the_public_addresses_need_no_key(gateway: LiveGateway, path: str) -> None:
    """Load balancers and readers of the documentation come in without a key."""
    assert httpx.get(f"{gateway.base_url}{path}", trust_env=False).status_code == 200


def test_auth_disabled_lets_everybody_in(start_gateway: StartGateway) -> None:
    """AUTH_DISABLED needs no key, and still serves sessions."""
    with start_gateway(auth_disabled=True, api_master_key="") as gateway:
        response = httpx.post(f"{gateway.base_url}/v1/chat/completions", json={**HELLO, "user": "ada"}, trust_env=False)
        assert response.status_code == 200
        assert httpx.get(f"{gateway.base_url}/v1/sessions/ada", trust_env=False).status_code == 200


def test_browsers_of_allowed_origins_may_call_and_read_our_headers(start_gateway: StartGateway) -> None:
    """A preflight needs no key, and answers (errors too) may be read by the allowed origin only."""
    origin = "https://chat.example.org"
    with start_gateway(cors_origins=f"{origin}, https://other.example.org") as gateway:
        url = f"{gateway.base_url}/v1/chat/completions"
        preflight = httpx.options(
            url,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-session-id",
            },
            trust_env=False,
        )
        refused = httpx.post(url, json=HELLO, headers={"Origin": origin}, trust_env=False)
        stranger = httpx.post(url, json=HELLO, headers={"Origin": "https://evil.example"}, trust_env=False)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)
    assert "x-session-action" in refused.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize(
    ("headers", "begins"),
    [
        ({}, "You didn't provide an API key."),
        ({"Authorization": "Bearer"}, "You didn't provide an API key."),
        ({"Authorization": "Bearer sk-wrong-0123456789"}, "Incorrect API key provided: sk-w***6789. "),
        ({"x-api-key": "sk-wrong-0123456789"}, "Incorrect API key provided: sk-w***6789. "),
        ({"x-goog-api-key": "sk-wrong-0123456789"}, "Incorrect API key provided: sk-w***6789. "),
        ({"Authorization": "Bearer sk-0123456789ab"}, "Incorrect API key provided: ***. "),
        ({"Authorization": "Bearer x"}, "Incorrect API key provided: ***. "),
        ({"Authorization": "Bearer sk-wröng-0123456789"}, "Incorrect API key provided: ***. "),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1beta/models"])
def test_a_wrong_key_is_told_by_its_ends_at_most(
    gateway: LiveGateway, path: str, headers: dict[str, str], begins: str
) -> None:
    """The words are OpenAI's; nobody can use what is told of a key, and of a short one nothing is."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = httpx.post(f"{gateway.base_url}{path}", json=HELLO, headers=raw, trust_env=False)
    assert response.status_code == 401
    assert response.json()["error"]["message"].startswith(begins)
    assert "0123456789" not in response.text


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [
        ("https://chat.example.org", "https://chat.example.org", 200),
        ("https://chat.example.org", "http://localhost:3000", 400),
        ("localhost", "http://localhost:3000", 200),
        ("localhost", "https://127.0.0.1", 200),
        ("localhost", "http://[::1]:8080", 200),
        ("localhost", "http://app.localhost:1420", 200),
        ("localhost", "http://localhost.evil.example", 400),
        ("localhost", "http://evil.example/localhost", 400),
        ("localhost, https://chat.example.org", "https://chat.example.org", 200),
        ("*", "null", 200),
    ],
)
def test_allowed_origins_get_every_preflight_answered(
    start_gateway: StartGateway, allowed: str, origin: str, answer: int
) -> None:
    """Private networks included; `localhost` stands for this machine's own pages."""
    with start_gateway(cors_origins=allowed) as gateway:
        response = _preflight(gateway, origin, {"Access-Control-Request-Private-Network": "true"})
    assert response.status_code == answer
    if answer == 200:
        assert response.headers["access-control-allow-origin"] in (origin, "*")
        assert response.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("auth_disabled", [True, False])
def test_without_allowed_origins_a_preflight_says_what_to_set(start_gateway: StartGateway, auth_disabled: bool) -> None:
    """The answer names the setting, instead of speaking of keys or methods."""
    with start_gateway(auth_disabled=auth_disabled) as gateway:
        response = _preflight(gateway, "https://chat.example.org", {})
        plain = httpx.options(f"{gateway.base_url}/v1/chat/completions", trust_env=False)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "cors_origin_not_allowed")
    assert "CORS_ORIGINS" in error["message"]
    assert "https://chat.example.org" in error["message"]
    assert plain.status_code == (405 if auth_disabled else 401)


def _preflight(gateway: LiveGateway, origin: str, headers: dict[str, str]) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return httpx.options(f"{gateway.base_url}/v1/chat/completions", headers=asked, trust_env=False)
