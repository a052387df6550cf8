"""LangChain agents, with its chat models for each of the gateway's dialects, and its embeddings."""

from typing import TextIO

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import needs_python_agents, run_script
from tests.live import LiveGateway
from tests.relaying import relaying
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


def test_embeddings(site: LiveSimulator, log_stream: TextIO) -> None:
    """Each question is found among the documents by its vector, which several requests have told alike."""
    with relaying(site, log_stream) as gateway:
        seen = run_script(gateway, "langchain_embeddings.py", "chat", "search")
    assert seen == {"places": [2, 1, 0], "dimensions": [8, 8, 8]}
