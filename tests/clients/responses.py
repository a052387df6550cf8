"""What tests of the responses dialect with OpenAI's SDK share."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from openai import OpenAI
from openai.types.responses import FunctionToolParam

from tests.scripted import ScriptedProvider

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather somewhere.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
Scripted = Callable[[ScriptedProvider], AbstractContextManager[OpenAI]]


def able(answer: Any) -> ScriptedProvider:
    """A provider whose model, `able-model`, does everything by itself."""
    return ScriptedProvider("able", answer, abilities=["messages", "options", "tools", "json_schema", "images"])
