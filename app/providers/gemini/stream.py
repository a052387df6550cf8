"""Reads Gemini's answers, whole or event by event: each is a document of the same shape. Pure."""

from collections.abc import Iterator

from msgspec.structs import replace

from app.domain.chat import Delta, NativeEvent, ToolCallDelta
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply
from app.domain.json import json_bytes, object_text
from app.providers.api_upstream.call_ids import CallIds
from app.providers.api_upstream.reply import Json, Reader
from app.providers.gemini.reply import usage_in
from app.providers.gemini.signatures import signed

# For parts of an answer that the document of an earlier one has said already.
_SAID = (NativeEvent("", b""),)


class ContentReader(Reader):
    """Turns the documents of one answer into deltas.

    Args:
        name: The upstream, for error messages.
        max_characters: Longer answers are refused.
        native: The deltas are to have the documents with them, as they came.
    """

    def __init__(self, name: str, max_characters: int, *, native: bool = False) -> None:
        super().__init__(name, max_characters)
        self._native = native
        # Documents that say nothing: as long as nothing has been said, another upstream may answer.
        self._held: list[NativeEvent] = []
        self._calls = 0
        self._ids = CallIds("call_")
        self._says_something = False
        self._blocked: object = None

    def feed(self, document: Json) -> list[Delta]:
        """The deltas of a document."""
        deltas = self._deltas(document)
        return self._with_document(document, deltas) if self._native else deltas

    def _with_document(self, document: Json, deltas: list[Delta]) -> list[Delta]:
        data = json_bytes(document)
        if not deltas:
            self._bound(len(data))
        self._held.append(NativeEvent("", data))
        if not deltas and not _has_parts(document):
            return deltas
        events, self._held = tuple(self._held), []
        if not deltas:
            return [Delta(native=events)]
        return [replace(deltas[0], native=events), *[replace(delta, native=_SAID) for delta in deltas[1:]]]

    def _deltas(self, document: Json) -> list[Delta]:
        feedback = document.get("promptFeedback")
        if isinstance(feedback, dict):
            self._blocked = feedback.get("blockReason") or self._blocked
        self.usage = usage_in(document.get("usageMetadata")) or self.usage
        candidate = _first_candidate(document)
        if candidate is None:
            return []
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        deltas = [
            delta
            for part in (parts if isinstance(parts, list) else ())
            if isinstance(part, dict) and (delta := self._delta(part)) is not None
        ]
        if deltas and self._finish_reason is not None:
            self._went_on = True
        if reason := candidate.get("finishReason"):
            self._finish(reason)
        return deltas

    def end(self) -> Iterator[Delta]:
        """The deltas after the last document; the very last one ends the answer."""
        reason = self._finish_reason or "stop"
        if not self._says_something and not self._native:
            if self._blocked or reason == "content_filter":
                raise MessageRefused(f"{self._name}'s content filter refuses to answer this.", param="messages")
            if reason != "length":
                raise EmptyReply(f"{self._name} sent an empty answer.")
        if self._calls and reason == "stop":
            reason = "tool_calls"
        elif self._blocked and not self._says_something:
            reason = "content_filter"
        yield Delta(finish_reason=reason, usage=self.usage, native=tuple(self._held))

    @property
    def may_end(self) -> bool:
        """Whether the upstream has sent a finish reason, or none will come because the prompt is blocked."""
        return super().may_end or self._blocked is not None

    def _delta(self, part: dict[str, object]) -> Delta | None:
        text, call, data = part.get("text"), part.get("functionCall"), part.get("inlineData")
        if isinstance(call, dict):
            return self._call(call, part)
        if isinstance(data, dict):
            return self._image(data)
        signature = signed(part.get("thoughtSignature"))
        text = text if isinstance(text, str) else ""
        if not text and not signature:
            return None
        is_thought = part.get("thought") is True
        if self._halves or not text.isascii():
            text = part["text"] = self._whole_pairs("thought" if is_thought else "text", text)
        self._bound(len(text))
        self._says_something = self._says_something or bool(text)
        return Delta(reasoning=text) if is_thought else Delta(text, extras=signature)

    def _call(self, call: Json, part: Json) -> Delta | None:
        name, given = call.get("name"), call.get("args")
        arguments = object_text(given if isinstance(given, str) else json_bytes(given or {}).decode())
        if not isinstance(name, str) or not name or arguments is None:
            if self._native:
                return None  # the client has asked for calls in pieces
            raise UnexpectedReply(
                f"{self._name} sent a tool call without a name, or without a JSON object as arguments."
            )
        self._bound(len(arguments))
        self._says_something = True
        index, self._calls = self._calls, self._calls + 1
        extras = signed(part.get("thoughtSignature"))
        return Delta(tool_call=ToolCallDelta(index, self._ids.unique(call.get("id")), name, arguments, extras))

    def _image(self, data: Json) -> Delta:
        """An image that the model has made, in the form that OpenRouter has for it."""
        url = f"data:{data.get('mimeType')};base64,{data.get('data')}"
        self._bound(len(url))
        self._says_something = True
        return Delta(extras={"images": [{"type": "image_url", "image_url": {"url": url}}]})


def _has_parts(document: Json) -> bool:
    """Whether a document of which no delta was made is a part of the answer all the same."""
    candidate = _first_candidate(document)
    content = None if candidate is None else candidate.get("content")
    return isinstance(content, dict) and bool(content.get("parts"))


def _first_candidate(document: Json) -> Json | None:
    candidates = document.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        if isinstance(candidate, dict) and candidate.get("index", 0) in (0, None, "0"):
            return candidate
    return None
