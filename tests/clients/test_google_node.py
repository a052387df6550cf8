"""Google's SDK for Node.js against a running gateway."""

import json
from typing import Any

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_modules("@google/genai")
READ_NOTE = Call("read_note", {"name": "shopping"})


def node(gateway: LiveGateway, scenario: str, fruit: str = "", key: str = ALICE_KEY) -> Any:
    """What came of a scenario of gemini.mjs."""
    environment = {"GATEWAY_URL": gateway.base_url, "GATEWAY_KEY": key, "FRUIT": fruit}
    return run_for_json(["node", "gemini.mjs", scenario], NODE_FOLDER, environment)


def test_a_plain_answer(gateway: LiveGateway, site: LiveSimulator) -> None:
    """It has the site's reply, why it ended, and its usage."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "plain")
    assert (seen["text"], seen["finishReason"]) == (EMOJI_TEXT, "STOP")
    assert min(seen["usage"]["promptTokenCount"], seen["usage"]["candidatesTokenCount"]) > 0


def test_a_stream(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The SDK reads a streamed answer in many pieces, the end with the last."""
    site.site.update(reply=EMOJI_TEXT)
    seen = node(gateway, "stream")
    assert "".join(seen["pieces"]) == EMOJI_TEXT
    assert len(seen["pieces"]) > 10
    assert seen["finishReason"] == "STOP"


def test_a_function_is_called_and_its_result_answered(gateway: LiveGateway, site: LiveSimulator) -> None:
    """In a chat, which the SDK keeps: the model answers with what the function said."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    assert node(gateway, "tools", fruit) == {"text": f"The fruit is {fruit}.", "called": ["shopping"]}
    assert "Which fruit is in the note?" in site.site.messages[-1].message


def test_tokens_are_counted_and_models_listed(gateway: LiveGateway) -> None:
    """`countTokens` and `models.list` work as the SDK calls them."""
    assert node(gateway, "countTokens")["tokens"] > 3
    assert "models/kimi-k2-instruct-0905" in node(gateway, "models")["names"]


def test_a_wrong_key(gateway: LiveGateway) -> None:
    """A wrong key is the SDK's error, in Google's words."""
    error = node(gateway, "plain", key="sk-nobodys-key")["error"]
    assert error["status"] == 401
    assert json.loads(error["message"])["error"]["status"] == "UNAUTHENTICATED"
