"""Writes whole legacy completions. Pure."""

import time
from collections.abc import Sequence

from app.api.request import unique_id
from app.api.wire.openai import usage_object
from app.chat.events import Answer, Ending
from app.domain.chat import FinishReason, Usage
from app.domain.json import json_bytes


def finish_reason(ending: Ending) -> FinishReason:
    """The `finish_reason`; this dialect knows no tools."""
    if ending.completion.refusal:
        return "content_filter"
    reason = ending.completion.finish_reason
    return "stop" if reason == "tool_calls" else reason


def write_completion(answers: Sequence[Answer], *, echoed: Sequence[str]) -> bytes:
    """Write answers as a `text_completion`, each a choice of its own.

    Args:
        echoed: What each answer begins with.
    """
    choices = [
        {
            "index": index,
            "text": echo + (answer.ending.completion.text or answer.ending.completion.refusal),
            "logprobs": None,
            "finish_reason": finish_reason(answer.ending),
        }
        for index, (answer, echo) in enumerate(zip(answers, echoed, strict=True))
    ]
    document = {
        "id": unique_id("cmpl-", 12),
        "object": "text_completion",
        "created": int(time.time()),
        "model": answers[0].opening.model,
        "choices": choices,
        "usage": usage_object(sum((answer.ending.usage for answer in answers), Usage(0, 0))),
    }
    return json_bytes(document)
