"""The Vercel AI SDK, with its providers for each of the gateway's dialects."""

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import needs_node_agents, run_script
from tests.live import LiveGateway
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_agents


@pytest.mark.parametrize("dialect", ["compatible", "chat", "responses", "anthropic"])
@pytest.mark.parametrize("scenario", ["tools", "streamedTools"])
def test_a_loop_with_a_tool(gateway: LiveGateway, site: LiveSimulator, dialect: str, scenario: str) -> None:
    """The SDK's loop runs the tool that the model calls and ends with an answer that knows what the tool said."""
    fruit = new_fruit()
    site.site.play(tool_user(Call("read_note", {"name": "shopping"})))
    assert run_script(gateway, "vercel.mjs", dialect, scenario, fruit) == {
        "text": f"The fruit is {fruit}.",
        "called": ["shopping"],
        "reasons": ["tool-calls", "stop"],
    }


@pytest.mark.parametrize("dialect", ["compatible", "chat", "responses"])
def test_an_object(gateway: LiveGateway, site: LiveSimulator, dialect: str) -> None:
    """`Output.object` gets an object that fits its schema."""
    site.site.update(reply='Here it is:\n```json\n{"fruit": "kumquat", "grams": 42}\n```')
    assert run_script(gateway, "vercel.mjs", dialect, "object") == {"fruit": "kumquat", "grams": 42}
