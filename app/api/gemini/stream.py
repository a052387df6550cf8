"""Writes the parts of a streamed answer, as server-sent events or as one JSON array. Pure."""

from collections.abc import Sequence
from typing import Any, ClassVar

from app.api.gemini.errors import error_body
from app.api.gemini.parts import arguments_of, call_part, extra_parts, text_part, usage_metadata
from app.api.gemini.write import FINISH_REASONS, as_it_came, finish_reason, new_response_id
from app.chat.events import Ending, Opening
from app.domain.chat import Delta, Extras, NativeEvent, ToolCall, ToolCallDelta
from app.domain.errors import GatewayError
from app.domain.json import json_bytes, read_json_object


class ContentEncoder:
    """Writes one answer's parts, each as a document of its own. A call is written when it is complete.

    Args:
        opening: How the call is answered.
        show_thoughts: Write what is thought, instead of leaving it out.
        as_array: Write one JSON array, for clients that don't ask for events.
        request_id: For the document of a failure.
    """

    # Google's clients read every line of a stream as JSON: no comment may be in it.
    ping: ClassVar[bytes] = b"\n"

    def __init__(self, opening: Opening, *, show_thoughts: bool, as_array: bool = False, request_id: str = "") -> None:
        self._model = opening.model
        # What doesn't change from piece to piece is encoded once.
        self._head = json_bytes({"modelVersion": opening.model, "responseId": new_response_id()})[1:]
        self._before_text = b'{"candidates":[{"content":{"parts":[{"text":'
        self._after_text = b'}],"role":"model"},"index":0}],' + self._head
        self._show_thoughts = show_thoughts
        self._request_id = request_id
        self._as_array = as_array
        self._has_begun = False
        # The answers' calls that aren't complete, and the pieces of their arguments.
        self._calls: dict[int, tuple[ToolCallDelta, list[str]]] = {}
        self._native_end: list[dict[str, Any]] = []

    def opening(self) -> bytes:
        """The beginning of the array."""
        return b"[" if self._as_array else b""

    def text(self, text: str) -> bytes:
        """A piece of text."""
        if not text:
            return b""
        call = self._call_end(0) if self._calls else b""
        return call + self._framed(self._before_text + json_bytes(text) + self._after_text)

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought; if it isn't shown, a sign of life, so that no proxy takes the stream for dead."""
        if not self._show_thoughts:
            return self.ping
        return self._call_end(0) + self._parts(text_part(text, thought=True)) if text else b""

    def refusal(self, text: str) -> bytes:
        """A piece of what is said in place of an answer: text, of which the finish reason says what it is."""
        return self.text(text)

    def extras(self, text: str, extras: Extras) -> bytes:
        """A piece of text with its signature, and images; there is no place for anything else."""
        parts = list(extra_parts(text, extras))
        return self._call_end(0) + self._parts(*parts) if parts else b""

    def other_choice(self, delta: Delta) -> bytes:
        """The documents of a part of another answer than the first."""
        index = delta.choice
        parts: list[dict[str, object]] = []
        if delta.reasoning and self._show_thoughts:
            parts.append(text_part(delta.reasoning, thought=True))
        if delta.text or delta.extras:
            parts += extra_parts(delta.text, delta.extras or {})
        if delta.refusal:
            parts.append(text_part(delta.refusal))
        written = self._call_end(index) if parts or delta.finish_reason else b""
        if parts:
            written += self._parts(*parts, index=index)
        if delta.tool_call is not None:
            written += self._call(delta.tool_call, index)
        if delta.finish_reason:
            written += self._document(candidates=[_last(FINISH_REASONS[delta.finish_reason], index)])
        return written

    def native(self, events: Sequence[NativeEvent]) -> bytes:
        """Documents of the upstream's own: as they came, but for the model's name. The last is kept for `ending`."""
        written = []
        for event in events:
            if not event.data:
                continue
            document = as_it_came(read_json_object(event.data) or {}, self._model)
            if self._native_end or _has_ended(document):
                self._native_end.append(document)
            else:
                written.append(self._framed(json_bytes(document)))
        return b"".join(written)

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A part of a tool call."""
        return self._call(part, 0)

    def ending(self, ending: Ending) -> bytes:
        """The last call, why the answer ended, and the usage."""
        if self._native_end:
            return b"".join([self._framed(json_bytes(each)) for each in self._native_end]) + self._end()
        completion = ending.completion
        was_cut = completion.finish_reason in ("length", "content_filter")
        written = b"".join([self._call_end(index, was_cut=was_cut) for index in tuple(self._calls)])
        last = self._document(
            candidates=[_last(finish_reason(completion), 0)], usageMetadata=usage_metadata(ending.usage)
        )
        return written + last + self._end()

    def failure(self, error: GatewayError) -> bytes:
        """A document with the error; there is no finish reason, so that no client takes the answer for complete."""
        return self._framed(error_body(error, self._request_id)) + self._end()

    def _call(self, part: ToolCallDelta, choice: int) -> bytes:
        begun = self._calls.get(choice)
        if begun is not None and begun[0].index == part.index:
            begun[1].append(part.arguments)
            return b""
        written = self._call_end(choice)
        self._calls[choice] = (part, [part.arguments])
        return written

    def _call_end(self, choice: int, *, was_cut: bool = False) -> bytes:
        """The document of the call that is open, if there is one.

        Args:
            was_cut: It may be half a call, which nobody can make.
        """
        begun = self._calls.pop(choice, None)
        if begun is None:
            return b""
        first, pieces = begun
        call = ToolCall(first.id or "", first.name or "", "".join(pieces), first.extras)
        if was_cut and arguments_of(call) is None:
            return b""
        return self._parts(call_part(call), index=choice)

    def _parts(self, *parts: dict[str, object], index: int = 0) -> bytes:
        return self._document(candidates=[{"content": {"parts": parts, "role": "model"}, "index": index}])

    def _document(self, **fields: object) -> bytes:
        return self._framed(json_bytes(fields)[:-1] + b"," + self._head)

    def _framed(self, document: bytes) -> bytes:
        if not self._as_array:
            return b"data: %b\n\n" % document
        before = b",\n" if self._has_begun else b""
        self._has_begun = True
        return before + document

    def _end(self) -> bytes:
        return b"]" if self._as_array else b""


def _last(reason: str, index: int) -> dict[str, object]:
    """The candidate that ends an answer. Google's SDKs throw a turn away if one of its contents has no part."""
    return {"content": {"parts": [text_part("")], "role": "model"}, "finishReason": reason, "index": index}


def _has_ended(document: dict[str, Any]) -> bool:
    """Whether this is the last document that says something: with a reason why the answer ends, or has none."""
    feedback = document.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return True
    candidates = document.get("candidates")
    return isinstance(candidates, list) and any(
        isinstance(candidate, dict) and candidate.get("finishReason") for candidate in candidates
    )
