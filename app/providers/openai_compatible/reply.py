"""Reads an upstream's answers, whole or in chunks. Pure, and tolerant of every deviation that has been seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.domain.chat import Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply, UpstreamUnavailable
from app.providers.openai_compatible.tool_calls import ToolCallReader

Json = Mapping[str, object]

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
}
# The upstream gave up: what came before is not a complete answer.
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource", "network_error", "abort"})
# Larger numbers are not believed.
_MOST_TOKENS = 10**12


@dataclass(slots=True)
class _Seen:
    """How much of an answer has arrived."""

    characters: int = 0
    tool_calls: bool = False


class ReplyReader:
    """Turns the chunks of one answer into deltas.

    Args:
        name: The upstream, for error messages.
        max_characters: Longer answers are refused.

    Attributes:
        complete: Nothing more will come: the upstream has sent a finish reason and then the usage. The provider sets it
            when it knows otherwise, by `[DONE]`.
    """

    def __init__(self, name: str, max_characters: int) -> None:
        self._name = name
        self._max_characters = max_characters
        self._calls = ToolCallReader()
        self._seen = _Seen()
        self._halves: dict[str, str] = {}
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self.complete = False

    @property
    def finished(self) -> bool:
        """Whether the upstream has sent a finish reason."""
        return self._finish_reason is not None

    def feed(self, document: Json) -> list[Delta]:
        """The deltas of a chunk, or of a whole completion.

        Raises:
            UpstreamUnavailable: The upstream has aborted its answer.
            UnexpectedReply: The answer is too long.
        """
        deltas: list[Delta] = []
        usage = _usage(document.get("usage"))
        choice = _first_choice(document)
        if choice is not None:
            deltas = self._deltas(_object(choice.get("delta")) or _object(choice.get("message")) or {})
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                self._finish(reason)
            usage = usage or _usage(choice.get("usage"))
        if usage is not None:
            self._usage = usage
            self.complete = self.finished
        return deltas

    def end(self) -> Iterator[Delta]:
        """The deltas after the last chunk; the very last one ends the answer.

        Raises:
            EmptyReply: The answer is empty.
            MessageRefused: The answer is empty because of a content filter.
        """
        for part in self._calls.flush():
            yield Delta(tool_call=part)
        reason = self._finish_reason or "stop"
        if self._seen.tool_calls and reason == "stop":
            reason = "tool_calls"
        if not self._seen.characters and not self._seen.tool_calls:
            if reason == "content_filter":
                raise MessageRefused(f"{self._name}'s content filter removed the whole answer.", param="messages")
            if reason != "length":
                raise EmptyReply(f"{self._name} sent an empty answer.")
        yield Delta(finish_reason=reason, usage=self._usage)

    def _deltas(self, delta: Json) -> list[Delta]:
        deltas: list[Delta] = []
        thought = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        if thought and (reasoning := self._whole_pairs("reasoning", thought)):
            self._bound(len(reasoning))
            deltas.append(Delta(reasoning=reasoning))
        said = _text(delta.get("content")) or _text(delta.get("refusal"))
        if said and (text := self._whole_pairs("text", said)):
            self._bound(len(text))
            deltas.append(Delta(text))
        for wire in _tool_calls(delta):
            self._seen.tool_calls = True
            for part in self._calls.feed(wire):
                self._bound(len(part.arguments))
                deltas.append(Delta(tool_call=part))
        return deltas

    def _whole_pairs(self, kind: str, text: str) -> str:
        """The text without a lone surrogate, which UTF-8 can't encode; its other half may come with the next chunk."""
        if not self._halves and text.isascii():
            return text
        text = self._halves.pop(kind, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[kind] = text[-1]
            text = text[:-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _finish(self, reason: str) -> None:
        word = reason.strip().lower().replace("-", "_")
        if word in _BROKEN_OFF:
            raise UpstreamUnavailable(f"{self._name} aborted its answer ({word}).")
        self._finish_reason = _FINISH_REASONS.get(word, "stop")

    def _bound(self, more: int) -> None:
        self._seen.characters += more
        if self._seen.characters > self._max_characters:
            raise UnexpectedReply(f"The answer from {self._name} is longer than {self._max_characters} characters.")


def read_completion(document: Json, name: str, max_characters: int) -> Completion:
    """The completion that a whole answer contains.

    Raises:
        UnexpectedReply: It has no choice, or is too long.
        GatewayError: As `ReplyReader`.
    """
    if _first_choice(document) is None:
        raise UnexpectedReply(f"The answer from {name} is not a chat completion.")
    reader = ReplyReader(name, max_characters)
    deltas = [*reader.feed(document), *reader.end()]
    return Completion(
        text="".join(delta.text for delta in deltas),
        finish_reason=deltas[-1].finish_reason or "stop",
        usage=deltas[-1].usage,
        tool_calls=_joined([delta.tool_call for delta in deltas if delta.tool_call is not None]),
        reasoning="".join(delta.reasoning for delta in deltas),
    )


def _joined(parts: list[ToolCallDelta]) -> tuple[ToolCall, ...]:
    heads = {part.index: (part.id or "", part.name or "") for part in reversed(parts)}
    return tuple(
        ToolCall(*heads[index], "".join(part.arguments for part in parts if part.index == index) or "{}")
        for index in sorted(heads)
    )


def _first_choice(document: Json) -> Json | None:
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
            return choice
    return None


def _object(value: object) -> Json | None:
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    """A text, which some upstreams send as a list of parts."""
    if isinstance(value, str):
        return value
    if value and isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def _tool_calls(delta: Json) -> list[Json]:
    calls = delta.get("tool_calls")
    if isinstance(calls, list) and calls:
        return [call for call in calls if isinstance(call, dict)]
    legacy = delta.get("function_call")
    return [{"index": 0, "function": legacy}] if isinstance(legacy, dict) else []


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, written, total = (_count(value.get(f"{what}_tokens")) for what in ("prompt", "completion", "total"))
    if prompt is None:
        return None
    details = _object(value.get("prompt_tokens_details")) or {}
    cached = details.get("cached_tokens") or value.get("prompt_cache_hit_tokens") or value.get("cached_tokens")
    thought = (_object(value.get("completion_tokens_details")) or {}).get("reasoning_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=max(0, (total or 0) - prompt) if written is None else written,
        cached_tokens=_count(cached) or 0,
        reasoning_tokens=_count(thought) or 0,
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if is_count and isinstance(value, int) else None
