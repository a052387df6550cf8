"""The official Python SDK against a running gateway, when something goes wrong: each fault is the SDK's own class."""

import asyncio
from contextlib import ExitStack

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from tests.clients.sdk import MODEL, ask, connect, connect_async, said
from tests.conftest import RunLog, StartGateway
from tests.live import LiveGateway, gateway_for

IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is an AuthenticationError that doesn't repeat the key."""
    with connect(gateway, "sk-nobodys-key") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    assert "nobodys" not in caught.value.message
    assert caught.value.request_id


def test_an_unknown_model(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A model that nobody serves is a NotFoundError, asked or looked up, and the site never hears of it."""
    with pytest.raises(openai.NotFoundError) as asked:
        openai_client.chat.completions.create(model="gpt-4o", messages=said("Hello"))
    with pytest.raises(openai.NotFoundError) as looked_up:
        openai_client.models.retrieve("gpt-4o")
    for error in (asked.value, looked_up.value):
        assert (error.code, error.param) == ("model_not_found", "model")
        assert "gpt-4o" in error.message
    assert site.site.messages == ()


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_over_the_limit(openai_client: OpenAI, site: LiveSimulator, stream: bool) -> None:
    """A last turn over the model's limit is a BadRequestError that names both sizes and the setting."""
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=MODEL, messages=said("x" * 1001), stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert all(word in caught.value.message for word in ("1001", "1000", "CONTEXT_MAX_LENGTH"))
    assert site.site.messages == ()


def test_a_limit_that_only_the_site_knows(openai_client: OpenAI, site: LiveSimulator) -> None:
    """A message that the site itself finds too long is the same BadRequestError."""
    site.site.update(char_limit=100)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(openai_client, "x" * 101)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_an_image(openai_client: OpenAI) -> None:
    """An image for a text-only model is a BadRequestError whose param names the very part."""
    message: ChatCompletionMessageParam = {
        "role": "user",
        "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": IMAGE}}],
    }
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=MODEL, messages=[message])
    assert caught.value.param == "messages[0].content[1]"
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", "Hello"),
        ("messages", [{"content": "Hello"}]),
        ("messages", [{"role": "wizard", "content": "Hello"}]),
        ("max_tokens", 0),
        ("stream", "perhaps"),
        ("n", 2),
        ("stop", 5),
        ("temperature", "hot"),
        ("response_format", "json"),
        ("tools", {"type": "function"}),
    ],
)
def test_a_wrong_field(openai_client: OpenAI, site: LiveSimulator, field: str, value: object) -> None:
    """A wrong field is a BadRequestError that names it, never a 422 that no OpenAI client expects."""
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=MODEL, messages=said("Hello"), extra_body={field: value})
    assert (caught.value.param or "").split("[")[0] == field
    assert caught.value.type == "invalid_request_error"
    assert site.site.messages == ()


def test_a_refused_message(openai_client: OpenAI, site: LiveSimulator) -> None:
    """What the site's moderation refuses is a BadRequestError, which no client sends again."""
    site.site.update(failure="moderated")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(openai_client, "Hello")
    assert caught.value.code == "content_filter"


async def test_a_busy_session(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """A second call of a session whose first hangs is a ConflictError; a call of another session isn't held up."""
    with start_gateway(session_lock_wait=0.05) as gateway:
        async with connect_async(gateway) as client:
            site.site.update(failure="hang", failure_times=1)
            first = asyncio.create_task(client.chat.completions.create(model=MODEL, messages=said("Hello"), user="mio"))
            assert await asyncio.to_thread(site.site.wait_for, lambda counters: counters.in_flight == 1)
            with pytest.raises(openai.ConflictError) as caught:
                await client.chat.completions.create(model=MODEL, messages=said("Hello?"), user="mio")
            await client.chat.completions.create(model=MODEL, messages=said("Hello"), user="ana")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
    assert caught.value.code == "session_busy"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert [message.message for message in site.site.messages] == ["Hello", "Hello"]


def test_the_sites_rate_limit(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The site's rate limit is a RateLimitError with the site's own Retry-After."""
    site.site.update(failure="rate_limited", retry_after_s=17)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(openai_client, "Hello")
    assert (caught.value.code, caught.value.type) == ("upstream_rate_limited", "rate_limit_error")
    assert caught.value.response.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ("refused", 502, "upstream_refused"),
        ("refused_html", 502, "upstream_refused"),
        ("html", 502, "site_changed"),
        ("other_json", 502, "site_changed"),
        ("truncated_json", 502, "site_changed"),
        ("redirect", 502, "site_changed"),
        ("empty_message", 502, "empty_reply"),
        ("huge", 502, "unexpected_reply"),
        ("server_error", 503, "upstream_unavailable"),
        ("bad_gateway", 503, "upstream_unavailable"),
        ("maintenance", 503, "upstream_unavailable"),
        ("overloaded", 503, "upstream_unavailable"),
        ("reset", 503, "upstream_unavailable"),
        ("reset_mid_body", 503, "upstream_unavailable"),
        ("forbidden", 503, "upstream_blocked"),
        ("challenge", 503, "cloudflare_challenge"),
        ("challenge_429", 503, "cloudflare_challenge"),
        ("nonce_refused", 503, "nonce_rejected"),
        ("hang", 504, "upstream_timeout"),
    ],
)
def test_the_sites_failures(
    start_gateway: StartGateway, site: LiveSimulator, failure: str, status: int, code: str
) -> None:
    """Each way in which the site fails is an InternalServerError with its own status and code, streamed or not."""
    site.site.update(failure=failure)
    settings = {"max_retries": 0, "max_reply_bytes": 100_000, "request_timeout": 0.5 if failure == "hang" else 20}
    with start_gateway(**settings) as gateway, connect(gateway) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=stream)
            error = caught.value
            assert (error.status_code, error.code, error.type) == (status, code, "server_error")
            assert error.request_id
            assert "<" not in error.message


def test_a_page_without_a_nonce(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """A chat page that has lost its nonce is an InternalServerError that says so."""
    site.site.update(page_failure="no_nonce")
    with (
        start_gateway(max_retries=0) as gateway,
        connect(gateway) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        ask(client, "Hello")
    assert (caught.value.status_code, caught.value.code) == (503, "nonce_missing")


def test_a_permanent_fault_is_not_tried_again(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """The SDK, which tries 5xx again by itself, leaves a changed site alone because the gateway says so."""
    site.site.update(failure="html")
    with (
        start_gateway(max_retries=0) as gateway,
        connect(gateway, max_retries=3) as client,
        pytest.raises(openai.InternalServerError),
    ):
        ask(client, "Hello")
    assert site.site.counters.messages == 1


def test_the_sdk_waits_out_a_rate_limit(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """The SDK's own retry gets over the site's 429, and its session holds the turn once."""
    site.site.update(failure="rate_limited", failure_times=1, retry_after_s=1)
    with start_gateway(max_retries=0) as gateway, connect(gateway, max_retries=2) as client:
        assert "Hello" in ask(client, "Hello", user="mio")
        with gateway.client() as http:
            session = http.get("/v1/sessions/mio").json()
    assert [message.outcome for message in site.site.messages] == ["rate_limited", "accepted"]
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"]


def test_a_client_that_gives_up_and_tries_again(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """When the SDK's own timeout ends a hanging call, its retry isn't held up by it, and the session holds one turn."""
    site.site.update(failure="hang", failure_times=1)
    with start_gateway() as gateway, connect(gateway, max_retries=3) as client:
        impatient = client.with_options(timeout=1)
        assert "Hello" in ask(impatient, "Hello", user="mio")
        with gateway.client() as http:
            session = http.get("/v1/sessions/mio").json()
    assert site.site.wait_for(lambda counters: counters.abandoned >= 1)
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"]


def read_all(client: OpenAI, seen: list[ChatCompletionChunk]) -> None:
    """Read a stream to its end, however that is."""
    with client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=True) as stream:
        seen.extend(stream)


def test_a_failure_within_a_stream(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """When the site fails after the stream has opened with heartbeats, reading on raises openai.APIError."""
    site.site.update(failure="hang")
    seen: list[ChatCompletionChunk] = []
    settings = {"max_retries": 0, "stream_grace_seconds": 0.01, "heartbeat_seconds": 0.02, "request_timeout": 1}
    with start_gateway(**settings) as gateway, connect(gateway) as client, pytest.raises(openai.APIError) as caught:
        read_all(client, seen)
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.code == "upstream_timeout"
    assert [chunk.choices[0].delta.content for chunk in seen] == [""]
    assert [chunk.choices[0].finish_reason for chunk in seen] == [None]


def test_a_site_that_dies_within_a_stream(run_log: RunLog) -> None:
    """A stream that is open when the site goes down ends in openai.APIError, not as if it were complete."""
    with ExitStack() as life:
        site = life.enter_context(running(Behaviour(failure="hang")))
        with (
            run_log.keeps_secrets_of(site),
            gateway_for(site, run_log.stream, max_retries=0, stream_grace_seconds=0.01) as gateway,
            connect(gateway) as client,
            client.chat.completions.create(model=MODEL, messages=said("Hello"), stream=True) as stream,
        ):
            assert site.site.wait_for(lambda counters: counters.in_flight == 1)
            life.close()
            with pytest.raises(openai.APIError) as caught:
                list(stream)
    assert caught.value.code == "upstream_unavailable"


def test_a_failed_turn_is_not_remembered(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """A turn that the site never answered leaves the session as it was before."""
    with start_gateway(max_retries=0) as gateway, connect(gateway) as client:
        ask(client, "My name is Mio.", user="mio")
        site.site.update(failure="server_error", failure_times=1)
        with pytest.raises(openai.InternalServerError):
            ask(client, "My name is Ana.", user="mio")
        assert ask(client, "What is my name?", user="mio") == "Your name is Mio."
