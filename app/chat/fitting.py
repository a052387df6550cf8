"""What is optional gives way where a model's limit leaves no room to tell it: tools, and forms of JSON."""

import re
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import PLAIN_TEXT, Message, OutputFormat, Tool, ToolUse
from app.domain.emulation.brief import brief
from app.domain.emulation.emulator import Emulator
from app.domain.emulation.signatures import signatures
from app.domain.prompt import PromptLimit, room_for_instructions

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OF_TOOLS = "tools."
_EXPLANATIONS = "tools[].description"
# A tool whose line is longer in characters waits behind the others, so that it doesn't keep them all out.
_LONG_LINE = 250


class RoomPolicy(Struct, frozen=True):
    """What is done where a text-only model's limit leaves too little room.

    Args:
        leaves_out: Tools, and forms of JSON, that aren't demanded are left out; else the request is refused.
        long_messages: What becomes of a last message that doesn't fit. `split` is for upstreams that keep a session;
            elsewhere such a message is refused.
        tells: A line below the answer tells what was left out or shortened.
    """

    leaves_out: bool = True
    long_messages: Literal["refuse", "shorten", "split"] = "refuse"
    tells: bool = False


USUAL_ROOM = RoomPolicy()


class Fitted(Struct, frozen=True):
    """What a model is told of tools and form.

    Args:
        emulator: Tells it; None if nothing is left to tell.
        left_out: The request's fields that were left out.
    """

    emulator: Emulator | None
    left_out: tuple[str, ...] = ()


NOTHING = Fitted(None)


def tools_among(left_out: Sequence[str]) -> int:
    """How many of the fields that were left out are tools."""
    return sum([name.startswith(_OF_TOOLS) for name in left_out])


def fitted(
    tools: ToolUse | None,
    output_format: OutputFormat,
    make: Callable[[ToolUse | None, OutputFormat], Emulator],
    messages: Sequence[Message],
    limit: PromptLimit,
) -> Fitted:
    """Leave out what doesn't fit beside the last message, and isn't demanded.

    Tools that the model need not call take at most half of the limit. If they don't fit there, each is told in few
    words; if that isn't enough, the most important stay: those called earlier, then those that the last message names,
    then in their order. More room never costs a tool. JSON that need not fit its schema exactly is asked for without
    the schema, or not at all. What is demanded stays, and the prompt is refused for it.

    Args:
        tools: What is to be told of tools; None if nothing.
        output_format: What is to be told of the answer's form.
        make: Makes an emulator.
        messages: The conversation.
        limit: The model's.
    """
    emulator = make(tools, output_format)
    room = room_for_instructions(messages, limit)
    left_out: list[str] = []
    if tools is not None and tools.choice == "auto":
        share = min(limit.size // 2, room - limit.measure(emulator.about_format))
        described = tools.callable_tools
        if limit.measure(emulator.about_tools) > share:
            overhead = limit.measure(emulator.about_tools) - limit.measure(emulator.tools_told)
            kept = _most_important([brief(tool) for tool in described], messages, share - overhead, limit)
            left_out = [f"{_OF_TOOLS}{tool.name}" for tool in described if tool.name not in kept]
            still_told = tuple(kept[tool.name] for tool in described if tool.name in kept)
            if any(kept[tool.name] != tool for tool in described if tool.name in kept):
                left_out.append(_EXPLANATIONS)
            tools = replace(tools, tools=still_told, allowed=None) if still_told else None
            emulator = make(tools, output_format)
    while emulator.about_format and not output_format.strict and limit.measure(emulator.instructions) > room:
        if output_format.place not in left_out:
            left_out.append(output_format.place)
        is_schema = output_format.kind == "json_schema"
        output_format = OutputFormat("json_object", place=output_format.place) if is_schema else PLAIN_TEXT
        emulator = make(tools, output_format)
    is_empty = tools is None and output_format.kind == "text"
    return Fitted(None if is_empty else emulator, tuple(left_out))


def _most_important(
    tools: Sequence[Tool], messages: Sequence[Message], room: int, limit: PromptLimit
) -> dict[str, Tool]:
    """The tools whose lines fit together, by name: none before which another would have to go."""
    called = {call.name for message in messages for call in message.tool_calls}
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    named = set(_NAME.findall(question))
    lines = {tool.name: signatures([tool]) for tool in tools}

    def importance(tool: Tool) -> tuple[bool, int]:
        return len(lines[tool.name]) > _LONG_LINE, 0 if tool.name in called else 1 if tool.name in named else 2

    kept: list[Tool] = []
    left = room
    for tool in sorted(tools, key=importance):
        left -= limit.measure(lines[tool.name]) + bool(kept)
        if left < 0:
            break
        kept.append(tool)
    # Types of one name in several tools get numbers.
    while kept and limit.measure(signatures(kept)) > room:
        kept.pop()
    return {tool.name: tool for tool in kept}
