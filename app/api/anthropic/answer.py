"""An answer as Anthropic's message, whole. Pure."""

import json

from app.chat.events import Answer, Ending
from app.domain.chat import FinishReason, ToolCall, Usage
from app.domain.errors import UnexpectedReply

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def stop_reason(ending: Ending) -> str:
    """Why the answer ended."""
    if ending.finish_reason == "stop" and ending.stop is not None:
        return "stop_sequence"
    return _STOP_REASONS[ending.finish_reason]


def usage_object(usage: Usage) -> dict[str, object]:
    """The `usage` of an answer; what was read from a cache is not among its `input_tokens`."""
    counts: dict[str, object] = {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


def message_object(answer: Answer, *, message_id: str, show_reasoning: bool) -> dict[str, object]:
    """The message.

    Args:
        show_reasoning: Put what was thought into a block of its own, instead of leaving it out.

    Raises:
        UnexpectedReply: The model calls a tool with something that can't be shown as its input.
    """
    content: list[dict[str, object]] = []
    if answer.reasoning and show_reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in answer.tool_calls
    ]
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": answer.opening.model,
        "content": content,
        "stop_reason": stop_reason(answer.ending),
        "stop_sequence": answer.ending.stop if stop_reason(answer.ending) == "stop_sequence" else None,
        "usage": usage_object(answer.ending.usage),
    }


def _input(call: ToolCall) -> dict[str, object]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise UnexpectedReply("The model called a tool with arguments that are no JSON object.")
    return arguments
