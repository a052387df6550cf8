"""A call as it can be asked again: as a request of chat completions, which is the form that most can read."""

from collections.abc import Mapping
from typing import Any

from app.domain.chat import ChatCall, Message, OutputFormat, Tool, ToolCall, ToolUse


def repeatable(call: ChatCall) -> dict[str, Any]:
    """The body of a request that asks the same, without images and thoughts.

    Args:
        call: In whichever dialect it came.
    """
    body: dict[str, Any] = {"model": call.model, "messages": [_told(message) for message in call.messages]}
    body |= {name: value for name, value in call.options.items() if name not in body}
    if call.max_tokens is not None:
        body["max_completion_tokens"] = call.max_tokens
    if call.stop:
        body["stop"] = list(call.stop)
    if call.tools is not None:
        body |= _tools(call.tools)
    if call.output_format.kind != "text":
        body["response_format"] = _format(call.output_format)
    return body


def messages_of(body: Mapping[str, Any]) -> list[Message]:
    """The messages of what `repeatable` returned."""
    return [
        Message(
            role=told["role"],
            text=told["content"],
            name=told.get("name"),
            tool_calls=tuple(
                [
                    ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                    for call in told.get("tool_calls", ())
                ]
            ),
            tool_call_id=told.get("tool_call_id"),
        )
        for told in body["messages"]
    ]


def _told(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.name is not None:
        told["name"] = message.name
    if message.tool_calls:
        told["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    return told


def _tools(use: ToolUse) -> dict[str, Any]:
    choice: object = use.choice
    if use.allowed is not None:
        names = [{"type": "function", "function": {"name": name}} for name in sorted(use.allowed)]
        mode = "auto" if use.choice == "auto" else "required"
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}
    told: dict[str, Any] = {"tools": [{"type": "function", "function": _tool(tool)} for tool in use.tools]}
    if choice != "auto":
        told["tool_choice"] = choice
    if not use.parallel:
        told["parallel_tool_calls"] = False
    return told


def _tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        told["description"] = tool.description
    if tool.strict:
        told["strict"] = True
    return told


def _format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.kind == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema or {}}
    if wanted.description:
        schema["description"] = wanted.description
    if wanted.strict:
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}
