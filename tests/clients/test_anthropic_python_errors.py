"""Anthropic's Python SDK against a running gateway, when something goes wrong: each fault is the SDK's own class."""

from collections.abc import Iterator
from typing import Any, TextIO

import anthropic
import pytest
from anthropic import Anthropic

from app.domain.chat import Delta
from app.domain.errors import UpstreamRateLimited, UpstreamTimeout, UpstreamUnavailable
from simulator.live import LiveSimulator
from tests.clients.anthropic_sdk import able, connect, gateway_with, said
from tests.conftest import StartGateway
from tests.live import LiveGateway
from tests.scripted import ScriptedProvider

MODEL = "kimi-k2-instruct-0905"
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}


@pytest.fixture
def claude(gateway: LiveGateway) -> Iterator[Anthropic]:
    """Anthropic's SDK with Alice's key, at a gateway with default settings."""
    with connect(gateway) as client:
        yield client


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is an AuthenticationError that doesn't repeat the key, at the models as well."""
    with connect(gateway, "sk-nobodys-key") as client:
        with pytest.raises(anthropic.AuthenticationError) as asked:
            client.messages.create(model=MODEL, max_tokens=100, messages=said("Hello"))
        with pytest.raises(anthropic.AuthenticationError) as listed:
            client.models.list()
    for error in (asked.value, listed.value):
        assert (error.type, error.error_code) == ("authentication_error", "invalid_api_key")
        assert "nobodys" not in str(error.api_message)
        assert error.request_id


def test_an_unknown_model(claude: Anthropic, site: LiveSimulator) -> None:
    """A model that nobody serves is a NotFoundError, asked, counted or looked up, and the site never hears of it."""
    model = "claude-opus-9"
    with pytest.raises(anthropic.NotFoundError) as asked:
        claude.messages.create(model=model, max_tokens=100, messages=said("Hello"))
    with pytest.raises(anthropic.NotFoundError) as counted:
        claude.messages.count_tokens(model=model, messages=said("Hello"))
    with pytest.raises(anthropic.NotFoundError) as looked_up:
        claude.models.retrieve(model)
    for error in (asked.value, counted.value, looked_up.value):
        assert (error.type, error.error_code) == ("not_found_error", "model_not_found")
        assert model in str(error.api_message)
    assert site.site.messages == ()


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_over_the_limit(claude: Anthropic, stream: bool) -> None:
    """A last turn over the model's limit is a BadRequestError in the words by which clients know to shorten it."""
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model=MODEL, max_tokens=100, messages=said("x" * 1001), stream=stream)
    assert caught.value.error_code == "context_length_exceeded"
    message = str(caught.value.api_message)
    assert message.startswith("prompt is too long: ")
    assert all(word in message for word in ("1001", "1000", "CONTEXT_MAX_LENGTH"))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content.0: "),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages.0.role: "),
        ({"messages": []}, "messages: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"tools": [SEARCH]}, "tools.0: "),
        ({"tool_choice": {"type": "any"}}, "tool_choice "),
    ],
)
def test_a_fault_of_the_request(claude: Anthropic, fields: dict[str, Any], place: str) -> None:
    """What is wrong with a request is a BadRequestError that begins with the place."""
    arguments: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": said("Hello"), **fields}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(**arguments)
    assert caught.value.type == "invalid_request_error"
    assert str(caught.value.api_message).startswith(place)


def test_an_image_for_a_model_that_cannot_see(claude: Anthropic) -> None:
    """The very block is named."""
    source: Any = {"type": "url", "url": "https://example.org/a.png"}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(
            model=MODEL,
            max_tokens=100,
            messages=[{"role": "user", "content": [{"type": "image", "source": source}]}],
        )
    assert str(caught.value.api_message).startswith("messages.0.content.0: ")


def test_a_page_that_is_none(claude: Anthropic) -> None:
    """A limit or a model that makes no sense for a page of models is a BadRequestError."""
    for arguments in ({"limit": 0}, {"after_id": "gpt-4o"}):
        with pytest.raises(anthropic.BadRequestError):
            claude.models.list(**arguments)


def test_a_body_that_is_too_large(start_gateway: StartGateway) -> None:
    """More than MAX_BODY_BYTES is the SDK's error for it."""
    with (
        start_gateway(max_body_bytes=2000) as gateway,
        connect(gateway) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model=MODEL, max_tokens=100, messages=said("x" * 3000))
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (413, "request_too_large")  # type: ignore[index]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (UpstreamRateLimited("Slow down.", retry_after=7), 429, "rate_limit_error"),
        (UpstreamUnavailable("Down.", retry_after=7), 503, "overloaded_error"),
        (UpstreamTimeout("Too late."), 504, "timeout_error"),
    ],
)
def test_an_upstream_in_trouble(
    site: LiveSimulator, log_stream: TextIO, error: Any, status: int, kind: str, stream: bool
) -> None:
    """Before the first word an upstream's failure has its true status, with the time to wait where it is known."""
    with (
        gateway_with(ScriptedProvider("able", error), site, log_stream) as gateway,
        connect(gateway) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model="able-model", max_tokens=100, messages=said("Hello"), stream=stream)
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert caught.value.response.headers.get("retry-after") == ("7" if error.retry_after else None)


def test_a_stream_that_breaks(site: LiveSimulator, log_stream: TextIO) -> None:
    """After the first word a failure is an event that the SDK raises; what was said before has been read."""
    provider = able([Delta("Half of"), UpstreamUnavailable("Gone.")])
    texts: list[str] = []
    with (
        gateway_with(provider, site, log_stream) as gateway,
        connect(gateway) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(model="able-model", max_tokens=100, messages=said("Hello")) as stream,
    ):
        texts.extend(stream.text_stream)
    assert texts == ["Half of"]
    assert caught.value.type == "overloaded_error"
    assert caught.value.api_message == "Gone."
    assert caught.value.body["request_id"] == caught.value.request_id  # type: ignore[index]


def test_a_permanent_fault_is_not_tried_again(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The SDK heeds what the gateway says about another try."""
    site.site.update(failure="html")
    with connect(gateway, max_retries=2) as client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=MODEL, max_tokens=100, messages=said("Hello"))
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"
