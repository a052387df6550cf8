"""LangChain agents, with its chat models for each of the gateway's dialects."""

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import needs_python_agents, run_script
from tests.live import LiveGateway
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_python_agents


@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic"])
def test_an_agent_with_a_tool(gateway: LiveGateway, site: LiveSimulator, dialect: str) -> None:
    """The agent runs the tool that the model calls and ends with an answer that knows what the tool said."""
    fruit = new_fruit()
    site.site.play(tool_user(Call("read_note", {"name": "shopping"})))
    seen = run_script(gateway, "langchain_agent.py", dialect, "tools", fruit)
    assert seen == {"text": f"The fruit is {fruit}.", "called": ["shopping"]}


def test_a_streamed_agent(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The same from a stream, with the answer in many pieces."""
    fruit = new_fruit()
    site.site.play(tool_user(Call("read_note", {"name": "shopping"})))
    seen = run_script(gateway, "langchain_agent.py", "chat", "streamed_tools", fruit)
    assert (seen["text"], seen["called"]) == (f"The fruit is {fruit}.", ["shopping"])
    assert seen["pieces"] > 3


def test_a_structured_answer(gateway: LiveGateway, site: LiveSimulator) -> None:
    """`with_structured_output` gets an answer of its type."""
    site.site.update(reply='{"fruit": "kumquat", "grams": 42}')
    assert run_script(gateway, "langchain_agent.py", "chat", "structured") == {"fruit": "kumquat", "grams": 42}
