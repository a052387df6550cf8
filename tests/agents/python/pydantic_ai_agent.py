"""A pydantic-ai agent with one tool. Prints what came of its run as JSON.

BASE_URL=… API_KEY=… FRUIT=… python pydantic_ai_agent.py chat|responses|anthropic tools|streamed_tools|typed|native
"""

import asyncio
import json
import os
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

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


def make_model(dialect: str) -> Model:
    """The model behind one of the gateway's dialects."""
    base_url, api_key = os.environ["BASE_URL"], os.environ["API_KEY"]
    if dialect == "anthropic":
        return AnthropicModel("kimi", provider=AnthropicProvider(base_url=base_url, api_key=api_key))
    provider = OpenAIProvider(base_url=base_url, api_key=api_key)
    make = OpenAIResponsesModel if dialect == "responses" else OpenAIChatModel
    return make("kimi", provider=provider)


async def tools(model: Model) -> Any:
    """The agent's answer, after it has used its tool."""
    done = await Agent(model, tools=[read_note]).run(QUESTION)
    return {"text": done.output, "called": called}


async def streamed_tools(model: Model) -> Any:
    """The same from the pieces of a stream."""
    async with Agent(model, tools=[read_note]).run_stream(QUESTION) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    return {"text": "".join(pieces), "called": called, "pieces": len(pieces)}


async def typed(model: Model) -> Any:
    """A typed answer after a tool, handed in by a call of the agent's own output tool."""
    done = await Agent(model, tools=[read_note], output_type=Fruit).run(QUESTION)
    return {**done.output.model_dump(), "called": called}


async def native(model: Model) -> Any:
    """A typed answer that the API itself is asked for."""
    done = await Agent(model, output_type=NativeOutput(Fruit)).run(QUESTION)
    return done.output.model_dump()


if __name__ == "__main__":
    scenarios = {"tools": tools, "streamed_tools": streamed_tools, "typed": typed, "native": native}
    print(json.dumps(asyncio.run(scenarios[sys.argv[2]](make_model(sys.argv[1])))))
