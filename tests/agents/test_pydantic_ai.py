"""pydantic-ai agents, with its models for each of the gateway's dialects."""

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import needs_python_agents, run_script
from tests.live import LiveGateway
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_python_agents
READ_NOTE = Call("read_note", {"name": "shopping"})


@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic"])
def test_an_agent_with_a_tool(gateway: LiveGateway, site: LiveSimulator, dialect: str) -> None:
    """The agent runs the tool that the model calls and ends with an answer that knows what the tool said."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    seen = run_script(gateway, "pydantic_ai_agent.py", dialect, "tools", fruit)
    assert seen == {"text": f"The fruit is {fruit}.", "called": ["shopping"]}


def test_a_streamed_agent(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The same from a stream, with the answer in many pieces."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE))
    seen = run_script(gateway, "pydantic_ai_agent.py", "chat", "streamed_tools", fruit)
    assert (seen["text"], seen["called"]) == (f"The fruit is {fruit}.", ["shopping"])
    assert seen["pieces"] > 3


def test_a_typed_result_after_a_tool(gateway: LiveGateway, site: LiveSimulator) -> None:
    """The agent demands a call in every turn, and gets its typed result by the second one."""
    fruit = new_fruit()
    site.site.play(tool_user(READ_NOTE, then=lambda found: Call("final_result", {"fruit": found, "grams": 42})))
    seen = run_script(gateway, "pydantic_ai_agent.py", "chat", "typed", fruit)
    assert seen == {"fruit": fruit, "grams": 42, "called": ["shopping"]}


def test_a_typed_result_by_response_format(gateway: LiveGateway, site: LiveSimulator) -> None:
    """A type that goes out as `response_format` comes back as JSON that fits it."""
    site.site.update(reply='{"fruit": "kumquat", "grams": 42}')
    assert run_script(gateway, "pydantic_ai_agent.py", "chat", "native") == {"fruit": "kumquat", "grams": 42}
