"""Tools, formats and replies for the tests."""

import itertools
from collections.abc import Mapping
from typing import Literal

from app.domain.chat import PLAIN_TEXT, OutputFormat, Tool, ToolUse
from app.domain.emulation.emulator import Emulator

TAG = "k3f9x2"
OPEN, CLOSE = f"<tool_call_{TAG}>", f"</tool_call_{TAG}>"
WEATHER = Tool(
    "get_weather",
    "Current weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOW = Tool("now", "The time")
ANY = Tool("store", "Stores anything", {"type": "object"})
ROME = '{"name":"get_weather","arguments":{"city": "Rome"}}'
OSLO = '{"name":"get_weather","arguments":{"city": "Oslo"}}'


def emulator(
    *tools: Tool,
    choice: Literal["none", "auto", "required"] = "auto",
    allowed: frozenset[str] | None = None,
    parallel: bool = True,
    output_format: OutputFormat = PLAIN_TEXT,
) -> Emulator:
    """For a request with these tools, or with the usual three; ids count from call_1."""
    ids = itertools.count(1)
    return Emulator(
        tools=ToolUse(tools or (WEATHER, NOW, ANY), choice, allowed, parallel),
        output_format=output_format,
        tag=TAG,
        call_id=lambda: f"call_{next(ids)}",
    )


def json_only(schema: Mapping[str, object] | None = None) -> Emulator:
    """For a request without tools that wants JSON."""
    kind: Literal["json_object", "json_schema"] = "json_object" if schema is None else "json_schema"
    return Emulator(tools=None, output_format=OutputFormat(kind, schema), tag=TAG)


def marked(call: str) -> str:
    """A call in the request's own tags."""
    return f"{OPEN}{call}{CLOSE}"


def kimi(name: str, arguments: str, index: int = 0) -> str:
    """A call in Kimi-K2's own tokens, without the section around it."""
    return f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
