"""A LangChain agent with one tool. Prints what came of its run as JSON.

BASE_URL=… API_KEY=… FRUIT=… python langchain_agent.py chat|responses|anthropic tools|streamed_tools|structured
"""

import json
import os
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

QUESTION = "Which fruit is in the note?"
called: list[str] = []


class Fruit(BaseModel):
    """A fruit and its weight."""

    fruit: str
    grams: int


def read_note(name: str) -> str:
    """Read a note."""
    called.append(name)
    return f"The note says: {os.environ['FRUIT']}."


def make_model(dialect: str) -> BaseChatModel:
    """The model behind one of the gateway's dialects."""
    base_url, api_key = os.environ["BASE_URL"], os.environ["API_KEY"]
    if dialect == "anthropic":
        return ChatAnthropic(model="kimi", base_url=base_url, api_key=api_key, max_retries=0)
    responses = dialect == "responses"
    return ChatOpenAI(model="kimi", base_url=base_url, api_key=api_key, max_retries=0, use_responses_api=responses)


def tools(model: BaseChatModel) -> Any:
    """The agent's answer, after it has used its tool."""
    ended = create_agent(model, [read_note]).invoke({"messages": [("user", QUESTION)]})
    return {"text": ended["messages"][-1].text, "called": called}


def streamed_tools(model: BaseChatModel) -> Any:
    """The same from the pieces of a stream."""
    agent = create_agent(model, [read_note])
    pieces = [
        message.text
        for message, step in agent.stream({"messages": [("user", QUESTION)]}, stream_mode="messages")
        if step["langgraph_node"] == "model"
    ]
    return {"text": "".join(pieces), "called": called, "pieces": len(pieces)}


def structured(model: BaseChatModel) -> Any:
    """A typed answer."""
    answer = model.with_structured_output(Fruit, method="json_schema").invoke(QUESTION)
    return Fruit.model_validate(answer).model_dump()


if __name__ == "__main__":
    scenarios = {"tools": tools, "streamed_tools": streamed_tools, "structured": structured}
    print(json.dumps(scenarios[sys.argv[2]](make_model(sys.argv[1]))))
