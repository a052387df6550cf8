"""Anthropic's SDK for Node.js against a running gateway."""

from typing import Any

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_modules("@anthropic-ai/sdk", "zod")
READ_NOTE = Call("read_note", {"name": "shopping"})


def node(gateway: LiveGateway, scenario: str, fruit: str = "", key: str = ALICE_KEY) -> Any:
    """What came of a scenario of anthropic.mjs."""
    environment = {"ANTHROPIC_BASE_URL": gateway.base_url, "ANTHROPIC_API_KEY": key, "FRUIT": fruit}
    return run_for_json(["node", "anthropic.mjs", scenario], NODE_FOLDER, environment)


def test_a_plain_message(gateway: LiveGateway, site: LiveSimulator) -> None:
    """A message has the site's reply, why it ended, its usage and the request id."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "plain")
    assert (seen["text"], seen["stopReason"]) == (EMOJI_TEXT, "end_turn")
    assert min(seen["usage"]["input_tokens"], seen["usage"]["output_tokens"]) > 0
    assert seen["requestId"].startswith("req_")


def test_a_stream(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The SDK puts a streamed message together from many pieces."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "stream")
    assert "".join(seen["pieces"]) == seen["text"] == EMOJI_TEXT
    assert len(seen["pieces"]) > 10
    assert seen["stopReason"] == "end_turn"


def test_a_tool_is_called_and_its_result_answered(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The SDK's tool runner runs the tool that the model calls, and the model answers with what it said.

    The runner would rather leave the conversation with the server; it has to send the model all of it.
    """
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    seen = node(gateway, "tools", fruit)
    assert seen == {"text": f"The fruit is {fruit}.", "called": ["shopping"], "stopReason": "end_turn"}
    assert "Which fruit is in the note?" in site.site.messages[-1].message


def test_streamed_tools(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The same streamed: the first message stops for the tool, the second is the answer."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    seen = node(gateway, "streamedTools", fruit)
    assert seen == {"text": f"The fruit is {fruit}.", "called": ["shopping"], "reasons": ["tool_use", "end_turn"]}
    assert "Which fruit is in the note?" in site.site.messages[-1].message


def test_tokens_are_counted_and_models_listed(gateway: LiveGateway) -> None:
    """`countTokens` and `models.list` work as the SDK calls them."""
    assert node(gateway, "countTokens")["tokens"] > 3
    assert "kimi-k2-instruct-0905" in node(gateway, "models")["ids"]


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is the SDK's AuthenticationError, with Anthropic's own error type."""
    error = node(gateway, "plain", key="sk-nobodys-key")["error"]
    assert (error["class"], error["status"], error["type"]) == ("AuthenticationError", 401, "authentication_error")
    assert error["requestId"].startswith("req_")
