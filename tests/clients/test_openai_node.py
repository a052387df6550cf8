"""The official SDK for Node.js against a running gateway."""

from typing import Any

import pytest

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json

pytestmark = needs_node_modules("openai")


def node(gateway: LiveGateway, scenario: str, *arguments: str, key: str = ALICE_KEY, retries: int = 0) -> Any:
    """What came of a scenario of client.mjs."""
    environment = {"OPENAI_BASE_URL": gateway.openai_url, "OPENAI_API_KEY": key, "MAX_RETRIES": str(retries)}
    return run_for_json(["node", "client.mjs", scenario, *arguments], NODE_FOLDER, environment)


def test_a_plain_completion(gateway: LiveGateway, site: LiveSimulator) -> None:
    """A plain completion has the site's reply, its usage and the request id of the response."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "plain")
    assert (seen["text"], seen["finishReason"], seen["model"]) == (EMOJI_TEXT, "stop", "kimi-k2-instruct-0905")
    assert seen["usage"]["prompt_tokens"] == 2
    assert seen["usage"]["total_tokens"] == 2 + seen["usage"]["completion_tokens"]
    assert seen["requestId"] == seen["requestIdHeader"]
    assert seen["requestId"].startswith("req_")


def test_a_stream(gateway: LiveGateway, site: LiveSimulator) -> None:
    """A stream comes in many pieces that join to the site's reply, ends once, and has the usage at its end."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "stream")
    assert len(seen["pieces"]) > 10
    assert "".join(seen["pieces"]) == EMOJI_TEXT
    assert seen["finishReasons"] == ["stop"]
    assert seen["usage"]["total_tokens"] == seen["usage"]["prompt_tokens"] + seen["usage"]["completion_tokens"] > 0


def test_a_session(gateway: LiveGateway) -> None:
    """Calls with the same `user` are one conversation."""
    assert node(gateway, "session") == {"text": "Your name is Mio."}


def test_the_models(gateway: LiveGateway) -> None:
    """The models can be listed and looked up."""
    seen = node(gateway, "models", "kimi")
    assert set(seen["ids"]) == {"kimi", "kimi-k2-instruct", "kimi-k2-instruct-0905"}
    assert seen["retrieved"] == "kimi"


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is the SDK's AuthenticationError."""
    error = node(gateway, "plain", key="sk-nobodys-key")["error"]
    assert (error["class"], error["status"], error["code"]) == ("AuthenticationError", 401, "invalid_api_key")
    assert error["requestId"].startswith("req_")


@pytest.mark.parametrize("scenario", ["plain", "stream"])
def test_an_unknown_model(gateway: LiveGateway, scenario: str) -> None:
    """An unknown model is the SDK's NotFoundError, which names the field, streamed or not."""
    error = node(gateway, scenario, "gpt-4o")["error"]
    assert (error["class"], error["status"], error["code"]) == ("NotFoundError", 404, "model_not_found")
    assert (error["param"], error["type"]) == ("model", "invalid_request_error")


def test_a_rate_limit_that_the_sdk_waits_out(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """The SDK's own retry gets over the site's 429 and its Retry-After; without retries it is a RateLimitError.

    While the Retry-After lasts the gateway says it to everybody by itself, and the site is left alone.
    """
    site.site.update(failure="rate_limited", failure_times=1, retry_after_s=3, reply="At last.")
    with start_gateway(max_retries=0) as gateway:
        error = node(gateway, "plain")["error"]
        seen = node(gateway, "plain", retries=1)
    assert (error["class"], error["status"], error["code"]) == ("RateLimitError", 429, "upstream_rate_limited")
    assert seen["text"] == "At last."
    assert [message.outcome for message in site.site.messages] == ["rate_limited", "accepted"]


def test_a_failure_within_a_stream(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """When the site fails after the stream has opened with heartbeats, reading on throws the SDK's APIError."""
    site.site.update(failure="hang")
    settings = {"max_retries": 0, "stream_grace_seconds": 0.01, "heartbeat_seconds": 0.02, "request_timeout": 1}
    with start_gateway(**settings) as gateway:
        error = node(gateway, "stream")["error"]
    assert (error["class"], error["isStatusError"], error["code"]) == ("APIError", False, "upstream_timeout")
