"""Writes whole chat completions. Pure."""

import time
from collections.abc import Collection, Sequence

from app.api.request import unique_id
from app.api.wire.custom import custom_input
from app.api.wire.openai import usage_object
from app.chat.events import Answer
from app.domain.chat import Completion, FinishReason, ToolCall
from app.domain.json import json_bytes


def finish_reason(reason: FinishReason, *, legacy: bool) -> str:
    """The `finish_reason`, in the words of clients that still speak of functions, or of all others."""
    return "function_call" if legacy and reason == "tool_calls" else reason


def write_completion(answers: Sequence[Answer], *, legacy: bool, custom: Collection[str] = ()) -> bytes:
    """Write an answer as a `chat.completion`.

    Args:
        legacy: The client speaks of `function_call`, as was usual before there were `tool_calls`.
        custom: The names of custom tools.
    """
    (answer,) = answers
    ending = answer.ending
    choices: list[object] = []
    # Mostly one. A loop costs less than a call for each.
    for completion in (ending.completion, *ending.completion.others):
        choice = {
            "index": len(choices),
            "message": _message(completion, legacy=legacy, custom=custom),
            "logprobs": completion.extras.get("logprobs") if completion.extras else None,
            "finish_reason": finish_reason(completion.finish_reason, legacy=legacy),
        }
        choices.append(choice)
    document = {
        "id": unique_id("chatcmpl-", 12),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.opening.model,
        "choices": choices,
        "usage": usage_object(ending.usage),
    }
    return json_bytes(document)


def _message(completion: Completion, *, legacy: bool, custom: Collection[str]) -> dict[str, object]:
    content = completion.text if completion.text or not (completion.tool_calls or completion.refusal) else None
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": completion.refusal or None}
    if completion.extras:
        message |= {name: value for name, value in completion.extras.items() if name != "logprobs"}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if not completion.tool_calls:
        return message
    if legacy:
        message["function_call"] = _function(completion.tool_calls[0])
    else:
        message["tool_calls"] = [
            {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": custom_input(call.arguments)}}
            if call.name in custom
            else {"id": call.id, "type": "function", "function": _function(call), **(call.extras or {})}
            for call in completion.tool_calls
        ]
    return message


def _function(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments}
