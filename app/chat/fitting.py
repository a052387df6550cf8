"""What is optional gives way where a model's limit leaves no room to tell it: tools, and forms of JSON."""

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from app.domain.chat import PLAIN_TEXT, Message, OutputFormat, Tool, ToolUse
from app.domain.emulation.emulator import Emulator
from app.domain.emulation.signatures import signatures
from app.domain.prompt import PromptLimit, room_for_instructions

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Fitted(Struct, frozen=True):
    """What a model is told of tools and form.

    Args:
        emulator: Tells it; None if nothing is left to tell.
        left_out: The request's fields that were left out.
    """

    emulator: Emulator | None
    left_out: tuple[str, ...] = ()


NOTHING = Fitted(None)


def fitted(
    tools: ToolUse | None,
    output_format: OutputFormat,
    make: Callable[[ToolUse | None, OutputFormat], Emulator],
    messages: Sequence[Message],
    limit: PromptLimit,
) -> Fitted:
    """Leave out what doesn't fit beside the last message, and isn't demanded.

    Tools that the model need not call take at most half of the limit. The most important stay: those called earlier,
    then those that the last message names, then in their order. JSON that need not fit its schema exactly is asked for
    without the schema, or not at all. What is demanded stays, and the prompt is refused for it.

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
            lines = dict(zip([tool.name for tool in described], emulator.tool_lines, strict=True))
            kept = _most_important(described, lines, messages, share - overhead, limit)
            left_out = [f"tools.{tool.name}" for tool in described if tool.name not in kept]
            still_told = tuple(tool for tool in described if tool.name in kept)
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
    tools: Sequence[Tool], lines: Mapping[str, str], messages: Sequence[Message], room: int, limit: PromptLimit
) -> set[str]:
    """The names of the tools whose lines fit.

    Args:
        lines: Those of the tools by their names, without their types.
    """
    called = {call.name for message in messages for call in message.tool_calls}
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    named = set(_NAME.findall(question))
    kept: set[str] = set()
    for tool in sorted(tools, key=lambda tool: 0 if tool.name in called else 1 if tool.name in named else 2):
        if limit.measure(lines[tool.name]) > room:  # spares writing it once more, with its types
            continue
        cost = limit.measure(signatures([tool])) + bool(kept)
        if cost <= room:
            room -= cost
            kept.add(tool.name)
    return kept
