"""Tools, typed answers and the other endpoints with OpenAI's SDK for Node.js."""

from typing import Any

import pytest

from simulator.live import LiveSimulator
from tests.clients.node_sdk import NODE_FOLDER, needs_node_modules
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_modules("openai", "zod")
READ_NOTE = Call("read_note", {"name": "shopping"})
# Fenced, as models like to write it.
FRUIT_JSON = '```json\n{"fruit": "kumquat", "grams": 42}\n```'


def node(gateway: LiveGateway, scenario: str, fruit: str = "") -> Any:
    """What came of a scenario of openai-tools.mjs."""
    environment = {"OPENAI_BASE_URL": gateway.openai_url, "OPENAI_API_KEY": ALICE_KEY, "FRUIT": fruit}
    return run_for_json(["node", "openai-tools.mjs", scenario], NODE_FOLDER, environment)


@pytest.mark.parametrize("scenario", ["tools", "streamedTools", "responses"])
def test_a_tool_is_called_and_its_result_answered(gateway: LiveGateway, site: LiveSimulator, scenario: str) -> None:
    """The SDK runs the tool that the model calls, and the model, told all again, answers with what it said."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    assert node(gateway, scenario, fruit) == {"text": f"The fruit is {fruit}.", "called": ["shopping"]}
    assert "Which fruit is in the note?" in site.site.messages[-1].message


def test_a_streamed_response_with_a_tool(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The SDK puts streamed responses together, a call and then a text, from the events that it knows for them."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    seen = node(gateway, "streamedResponses", fruit)
    assert (seen["text"], seen["called"]) == (f"The fruit is {fruit}.", ["shopping"])
    assert set(seen["events"]) >= {
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_text.delta",
        "response.output_item.done",
        "response.completed",
    }


@pytest.mark.parametrize("scenario", ["parse", "parsedResponse"])
def test_a_typed_answer(gateway: LiveGateway, site: LiveSimulator, scenario: str) -> None:
    """What the SDK asks for with a schema comes as JSON of that schema, and nothing else."""
    site.site.update(reply=FRUIT_JSON)
    assert node(gateway, scenario) == {"fruit": "kumquat", "grams": 42}


def test_completions_of_the_older_kind(gateway: LiveGateway, site: LiveSimulator) -> None:
    """`completions.create` gets the reply whole, and the same streamed in pieces."""
    site.site.update(reply="there was a gateway that spoke every dialect.")
    seen = node(gateway, "completions")
    assert seen["whole"] == "".join(seen["pieces"]) == "there was a gateway that spoke every dialect."
    assert len(seen["pieces"]) > 3
