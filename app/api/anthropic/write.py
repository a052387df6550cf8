"""Writes whole messages. Pure."""

import json
from collections.abc import Mapping, Sequence

from app.api.request import unique_id
from app.chat.events import Answer, Ending
from app.domain.chat import Completion, FinishReason, ToolCall, Usage
from app.domain.errors import UnexpectedReply
from app.domain.json import json_bytes

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def stop_reason(ending: Ending) -> str:
    """Why the answer ended."""
    completion = ending.completion
    if completion.refusal:
        return "refusal"
    if completion.finish_reason == "stop" and completion.stop is not None:
        return "stop_sequence"
    return _STOP_REASONS[completion.finish_reason]


def usage_object(usage: Usage) -> dict[str, object]:
    """The `usage` of an answer; what a cache gave or got is not among its `input_tokens`."""
    counts: dict[str, object] = {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_written_tokens),
        "cache_creation_input_tokens": usage.cache_written_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


def write_message(answers: Sequence[Answer], *, show_reasoning: bool) -> bytes:
    """Write an answer as a message.

    Args:
        show_reasoning: Put what was thought into blocks of its own, instead of leaving it out.

    Raises:
        UnexpectedReply: The model calls a tool with arguments that can't be shown as its input.
    """
    (answer,) = answers
    ending = answer.ending
    native = ending.completion.native
    if native is not None:
        return json_bytes(_as_it_came(native, answer.opening.model, ending))
    reason = stop_reason(ending)
    document = {
        "id": new_message_id(),
        "type": "message",
        "role": "assistant",
        "model": answer.opening.model,
        "content": _content(ending.completion, show_reasoning=show_reasoning),
        "stop_reason": reason,
        "stop_sequence": ending.completion.stop if reason == "stop_sequence" else None,
        "usage": usage_object(ending.usage),
    }
    return json_bytes(document)


def new_message_id() -> str:
    """A fresh id for a message."""
    return unique_id("msg_", 12)


def _as_it_came(message: Mapping[str, object], model: str, ending: Ending) -> dict[str, object]:
    """An upstream's message under the name that the client asked for, with a notice below it.

    What clients can't do without is made up where the upstream has left it out.
    """
    content, notice = message.get("content"), ending.notice
    blocks = [*(content if isinstance(content, list) else ()), *([{"type": "text", "text": notice}] if notice else ())]
    document = {"type": "message", "role": "assistant", **message, "model": model, "content": blocks}
    if not isinstance(document.get("id"), str):
        document["id"] = new_message_id()
    if not isinstance(document.get("stop_reason"), str):
        document["stop_reason"] = stop_reason(ending)
    if not isinstance(document.get("usage"), dict):
        document["usage"] = usage_object(ending.usage)
    return document


def _content(completion: Completion, *, show_reasoning: bool) -> list[dict[str, object]]:
    content: list[dict[str, object]] = []
    if completion.reasoning and show_reasoning:
        content.append({"type": "thinking", "thinking": completion.reasoning, "signature": ""})
    if completion.text or completion.refusal:
        content.append({"type": "text", "text": completion.text + completion.refusal})
    was_cut = completion.finish_reason in ("length", "content_filter")
    for call in completion.tool_calls:
        arguments = _input(call)
        if arguments is not None:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
            content.append({**block, **(call.extras or {})})
        elif not was_cut:
            raise UnexpectedReply("The model called a tool with arguments that are not a JSON object.")
    return content


def _input(call: ToolCall) -> dict[str, object] | None:
    """A call's arguments; None if they are no JSON object, such as those of a call that was cut off."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
