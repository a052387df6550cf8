"""Writes whole answers. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from app.api.gemini.parts import arguments_of, call_part, extra_parts, text_part, usage_metadata
from app.api.request import unique_id
from app.chat.deltas import as_deltas
from app.chat.events import Answer
from app.domain.chat import Completion, Delta, FinishReason, ToolCall
from app.domain.json import json_bytes

FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}


def finish_reason(completion: Completion) -> str:
    """Why an answer ended."""
    return "SAFETY" if completion.refusal else FINISH_REASONS[completion.finish_reason]


def new_response_id() -> str:
    """A fresh id for a response."""
    return unique_id("resp_", 12)


def write_content(answers: Sequence[Answer], *, show_thoughts: bool) -> bytes:
    """Write an answer as a `GenerateContentResponse`.

    Args:
        show_thoughts: Write what was thought, instead of leaving it out.

    Raises:
        UnexpectedReply: The model calls a function with arguments that can't be shown.
    """
    (answer,) = answers
    ending, model = answer.ending, answer.opening.model
    completion = ending.completion
    if completion.native is not None:
        return json_bytes(as_it_came(completion.native, model, ending.notice))
    candidates = [
        {
            "content": {"parts": list(_parts(each, show_thoughts=show_thoughts)), "role": "model"},
            "finishReason": finish_reason(each),
            "index": index,
        }
        for index, each in enumerate((completion, *completion.others))
    ]
    document = {
        "candidates": candidates,
        "usageMetadata": usage_metadata(ending.usage),
        "modelVersion": model,
        "responseId": new_response_id(),
    }
    return json_bytes(document)


def as_it_came(document: Mapping[str, object], model: str, notice: str = "") -> dict[str, object]:
    """An upstream's document under the name that the client asked for, with a notice below its first answer."""
    named = {**document, "modelVersion": model}
    candidates = document.get("candidates")
    if not notice or not isinstance(candidates, list) or not candidates or not isinstance(candidates[0], dict):
        return named
    first: dict[str, object] = candidates[0]
    content = first.get("content")
    content = content if isinstance(content, dict) else {"role": "model"}
    parts = content.get("parts")
    parts = [*(parts if isinstance(parts, list) else ()), text_part(notice)]
    return {**named, "candidates": [{**first, "content": {**content, "parts": parts}}, *candidates[1:]]}


def _parts(completion: Completion, *, show_thoughts: bool) -> Iterator[dict[str, object]]:
    was_cut = completion.finish_reason in ("length", "content_filter")
    for delta in _with_signatures(as_deltas(completion)):
        if delta.reasoning and show_thoughts:
            yield text_part(delta.reasoning, thought=True)
        if delta.extras:
            yield from extra_parts(delta.text, delta.extras)
        elif delta.text:
            yield text_part(delta.text)
        if delta.refusal:
            yield text_part(delta.refusal)
        if delta.tool_call is not None:
            part = delta.tool_call
            call = ToolCall(part.id or "", part.name or "", part.arguments, part.extras)
            if not was_cut or arguments_of(call) is not None:
                yield call_part(call)


def _with_signatures(deltas: Sequence[Delta]) -> Iterator[Delta]:
    """The deltas, with what was added to a text at the text itself, where it comes right behind it."""
    last: Delta | None = None
    for delta in deltas:
        is_added = delta.extras is not None and not delta.text and not delta.refusal
        if last is not None and is_added and last.text and last.extras is None:
            yield Delta(last.text, reasoning=last.reasoning, extras=delta.extras)
            last = None
            continue
        if last is not None:
            yield last
        last = delta
    if last is not None:
        yield last
