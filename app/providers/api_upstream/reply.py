"""What reading an answer takes, whatever form of API it came in."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from app.domain.chat import Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage, merged_extras
from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.domain.surrogates import whole_pairs
from app.providers.api_upstream.vendor_words import BrokenOff, finish_reason_of

Json = Mapping[str, object]


class Reader(ABC):
    """Turns the documents of one answer into deltas: the events of a stream, or a whole answer.

    Args:
        name: The upstream, for error messages.
        max_characters: Longer answers are refused.

    Attributes:
        complete: Nothing more will come. The provider sets it when `[DONE]` has come.
        usage: What the upstream has counted so far; None if it hasn't.
    """

    def __init__(self, name: str, max_characters: int) -> None:
        self._name = name
        self._max_characters = max_characters
        self._characters = 0
        self._halves: dict[str, str] = {}
        self._finish_reason: FinishReason | None = None
        self._went_on = False
        self._warned: set[str] = set()
        self.usage: Usage | None = None
        self.complete = False

    @property
    def finished(self) -> bool:
        """Whether the upstream has sent a finish reason, and one that can be believed: nothing came after it."""
        return self._finish_reason is not None and not self._went_on

    @property
    def may_end(self) -> bool:
        """Whether the upstream has sent a finish reason."""
        return self._finish_reason is not None

    @property
    def size(self) -> int:
        """The characters so far, those that are held back included."""
        return self._characters

    @property
    def finish_reason(self) -> FinishReason | None:
        """The finish reason that the upstream has sent."""
        return self._finish_reason

    @abstractmethod
    def feed(self, document: Json) -> list[Delta]:
        """The deltas of a document.

        Raises:
            UpstreamUnavailable: The upstream has aborted its answer.
            UnexpectedReply: The answer is too long, or makes no sense.
        """

    @abstractmethod
    def end(self) -> Iterable[Delta]:
        """The deltas after the last document; the very last one ends the answer.

        Raises:
            EmptyReply: The answer is empty.
            MessageRefused: The answer is empty because of a content filter.
            UnexpectedReply: Its tool calls make no sense.
        """

    def _whole_pairs(self, kind: str, text: str) -> str:
        """The text without a lone surrogate, which UTF-8 can't encode; its other half may come with the next chunk."""
        whole, half = whole_pairs(self._halves.pop(kind, "") + text)
        if half:
            self._halves[kind] = half
        return whole

    def _finish(self, word: object) -> None:
        try:
            reason = finish_reason_of(word)
        except BrokenOff:
            raise UpstreamUnavailable(f"{self._name} aborted its answer ({word}).") from None
        except LookupError:
            self._warn("upstream.unknown_finish_reason", reason=str(word)[:100])
            reason = "stop"
        # A cut stays one, though a `stop` may follow.
        if reason is not None and (reason != "stop" or self._finish_reason is None):
            self._finish_reason = reason

    def _warn(self, event: str, **fields: str) -> None:
        """Log what is odd about an answer: each kind once, however often the upstream does it."""
        if event not in self._warned:
            self._warned.add(event)
            structlog.get_logger("kimi.upstream").warning(event, upstream=self._name, **fields)

    def _bound(self, more: int) -> None:
        self._characters += more
        if self._characters > self._max_characters:
            raise UnexpectedReply(f"The answer from {self._name} is longer than {self._max_characters} characters.")


def gathered(deltas: Sequence[Delta]) -> Completion:
    """The completion that an answer's deltas are together."""
    others = sorted({delta.choice for delta in deltas} - {0})
    if others:
        first, *more = [_one([delta for delta in deltas if delta.choice == index]) for index in (0, *others)]
        return replace(first, others=tuple(more))
    return _one(deltas)


def _one(deltas: Sequence[Delta]) -> Completion:
    extras = [delta.extras for delta in deltas if delta.extras]
    return Completion(
        text="".join([delta.text for delta in deltas]),
        finish_reason=deltas[-1].finish_reason or "stop",
        usage=deltas[-1].usage,
        tool_calls=_joined([delta.tool_call for delta in deltas if delta.tool_call is not None]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        stop=deltas[-1].stop,
        refusal="".join([delta.refusal for delta in deltas]),
        extras=merged_extras(extras) if extras else None,
    )


def _joined(parts: list[ToolCallDelta]) -> tuple[ToolCall, ...]:
    if not parts:
        return ()
    calls: dict[int, list[ToolCallDelta]] = {}
    for part in parts:
        calls.setdefault(part.index, []).append(part)
    return tuple([
        ToolCall(
            of_call[0].id or "",
            of_call[0].name or "",
            "".join([part.arguments for part in of_call]),
            merged_extras([part.extras for part in of_call if part.extras]),
        )
        for _, of_call in sorted(calls.items())
    ])  # fmt: skip
