"""Google's Python SDK against a running gateway, when something goes wrong: each fault is told in Google's words."""

from collections.abc import Iterator
from typing import Any, TextIO

import pytest
from google import genai
from google.genai import errors, types

from app.domain.chat import Delta
from app.domain.errors import GatewayError, LimitReached, UpstreamRateLimited, UpstreamTimeout, UpstreamUnavailable
from simulator.live import LiveSimulator
from tests.clients.anthropic_sdk import able, gateway_with
from tests.clients.google_sdk import connect
from tests.live import LiveGateway
from tests.scripted import ScriptedProvider

MODEL = "kimi-k2-instruct-0905"
ABLE = "able-model"
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def gemini(gateway: LiveGateway) -> Iterator[genai.Client]:
    """Google's SDK with Alice's key, at a gateway with default settings."""
    with connect(gateway) as client:
        yield client


def reason_of(error: errors.APIError) -> str:
    """The gateway's own code."""
    reason: str = error.details["error"]["details"][0]["reason"]
    return reason


def ask(client: genai.Client, *, stream: bool = False, **arguments: Any) -> None:
    """Ask, and read whatever comes."""
    arguments = {"model": MODEL, "contents": "Hello", **arguments}
    if stream:
        list(client.models.generate_content_stream(**arguments))
    else:
        client.models.generate_content(**arguments)


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is UNAUTHENTICATED, and not repeated, at the models as well."""
    with connect(gateway, "sk-nobodys-key") as client:
        with pytest.raises(errors.ClientError) as asked:
            ask(client)
        with pytest.raises(errors.ClientError) as listed:
            client.models.list()
    for error in (asked.value, listed.value):
        assert (error.code, error.status, reason_of(error)) == (401, "UNAUTHENTICATED", "invalid_api_key")
        assert "nobodys" not in str(error.message)
        assert "x-goog-api-key" in str(error.message)


def test_an_unknown_model(gemini: genai.Client, site: LiveSimulator) -> None:
    """A model that nobody serves is NOT_FOUND, asked, counted or looked up, and the site never hears of it."""
    model = "gemini-9-pro"
    with pytest.raises(errors.ClientError) as asked:
        ask(gemini, model=model)
    with pytest.raises(errors.ClientError) as counted:
        gemini.models.count_tokens(model=model, contents="Hello")
    with pytest.raises(errors.ClientError) as looked_up:
        gemini.models.get(model=model)
    for error in (asked.value, counted.value, looked_up.value):
        assert (error.code, error.status, reason_of(error)) == (404, "NOT_FOUND", "model_not_found")
        assert model in str(error.message)
    assert site.site.messages == ()


@STREAMED
def test_a_message_over_the_limit(gemini: genai.Client, stream: bool) -> None:
    """A last turn over the model's limit is INVALID_ARGUMENT, and says what the limit is."""
    with pytest.raises(errors.ClientError) as caught:
        ask(gemini, stream=stream, contents="x" * 1001)
    assert (caught.value.code, reason_of(caught.value)) == (400, "context_length_exceeded")
    assert all(word in str(caught.value.message) for word in ("1001", "1000", "CONTEXT_MAX_LENGTH"))


def test_what_is_not_there(gemini: genai.Client) -> None:
    """Files, caches and other methods of Google's are refused in its words."""
    search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    with pytest.raises(errors.ClientError) as searched:
        ask(gemini, config=search)
    assert (searched.value.code, searched.value.status) == (400, "INVALID_ARGUMENT")
    assert "googleSearch" in str(searched.value.message)
    with pytest.raises(errors.ClientError) as listed:
        gemini.files.list()
    assert (listed.value.code, listed.value.status) == (404, "NOT_FOUND")
    with pytest.raises(errors.ClientError) as embedded:
        gemini.models.embed_content(model=MODEL, contents="Hello")
    assert (embedded.value.code, embedded.value.status) == (404, "NOT_FOUND")
    assert "/v1/embeddings" in str(embedded.value.message)


@STREAMED
@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (UpstreamRateLimited("Slow down.", retry_after=7), 429, "RESOURCE_EXHAUSTED"),
        (UpstreamUnavailable("Away."), 503, "UNAVAILABLE"),
        (UpstreamTimeout("Too late."), 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_an_upstream_that_fails(
    site: LiveSimulator, log_stream: TextIO, stream: bool, error: GatewayError, code: int, status: str
) -> None:
    """Before the first word it is an error with its true status."""
    provider = able([error])
    with (
        gateway_with(provider, site, log_stream) as gateway,
        connect(gateway) as client,
        pytest.raises(errors.APIError) as caught,
    ):
        ask(client, stream=stream, model=ABLE)
    assert (caught.value.code, caught.value.status) == (code, status)
    delays = [each["retryDelay"] for each in caught.value.details["error"]["details"] if "retryDelay" in each]
    assert delays == (["7s"] if code == 429 else [])


def test_a_stream_that_breaks_off(site: LiveSimulator, log_stream: TextIO) -> None:
    """After the first word the SDK raises what came in place of the rest."""
    provider = able([Delta("One,"), UpstreamUnavailable("Away.")])
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        stream = client.models.generate_content_stream(model=ABLE, contents="Hello")
        assert next(stream).text == "One,"
        with pytest.raises(errors.ServerError) as caught:
            list(stream)
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")


def test_the_sdk_tries_again(site: LiveSimulator, log_stream: TextIO) -> None:
    """A limit that is reached is worth another try, and the SDK makes it."""
    provider = ScriptedProvider("able", [LimitReached("Too many.", retry_after=0.01)])
    with (
        gateway_with(provider, site, log_stream) as gateway,
        connect(gateway, attempts=3) as client,
        pytest.raises(errors.ClientError) as caught,
    ):
        ask(client, model=ABLE)
    assert caught.value.status == "RESOURCE_EXHAUSTED"
    assert len(provider.requests) == 3
