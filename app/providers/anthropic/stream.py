"""Reads the events of a message. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from app.domain.chat import Delta, NativeEvent, ToolCallDelta
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply
from app.domain.json import json_bytes, object_text
from app.providers.anthropic.blocks import BlockOrder
from app.providers.anthropic.reply import events_of
from app.providers.anthropic.thoughts import sealed_detail, signed_detail
from app.providers.api_upstream.object_end import ObjectEnd
from app.providers.api_upstream.reply import Json, Reader
from app.providers.api_upstream.vendor_words import usage_of

# It stands in a line of its own.
_TYPE = re.compile(r"[a-z_]{1,64}")


@dataclass(slots=True)
class _Block:
    """The content block that is open."""

    kind: str
    call: int = -1
    """Which of the answer's calls it is."""
    begins_at: int = 0
    """The characters of text before it."""
    pieces: list[str] = field(default_factory=list)
    end: ObjectEnd = field(default_factory=ObjectEnd)
    signature: str = ""
    citations: list[Json] = field(default_factory=list)


class MessageReader(Reader):
    """Turns the events of one message, or a whole message, into deltas.

    Args:
        name: The upstream, for error messages.
        max_characters: Longer answers are refused.
        native: The deltas are to have the events with them, as they came.
    """

    def __init__(self, name: str, max_characters: int, *, native: bool = False) -> None:
        super().__init__(name, max_characters)
        self._native = native
        # Events that say nothing yet: as long as nothing has been said, another upstream may answer.
        self._held: list[NativeEvent] = []
        self._order = BlockOrder(name)
        self._block = _Block("")
        self._has_begun = self._says_anything = self._is_malformed = False
        self._blocks = self._calls = self._text_size = 0
        self._counts: dict[str, object] = {}
        self._stop: str | None = None

    def feed(self, document: Json) -> list[Delta]:
        """The deltas of an event, or of a whole message."""
        kind = document.get("type")
        if kind == "content_block_delta" and document.get("index") == self._order.here:
            delta = document.get("delta")
            if not isinstance(delta, dict) or not isinstance(delta.get("type"), str):
                return []
            deltas = self._piece(delta)
            return self._with_events(kind, document, deltas) if self._native else deltas
        if kind == "message" or (kind is None and isinstance(document.get("content"), list)):
            return [delta for event in events_of(document) for delta in self.feed(event)]
        events = self._order.ordered(kind, document)
        return [delta for event in events for delta in self._taken(event.get("type"), event)]

    def _taken(self, kind: object, document: Json) -> list[Delta]:
        deltas = self._deltas(kind, document)
        return self._with_events(kind, document, deltas) if self._native else deltas

    def _with_events(self, kind: object, document: Json, deltas: list[Delta]) -> list[Delta]:
        if kind == "ping" or not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            return deltas  # the gateway keeps its streams alive itself
        data = json_bytes(document)
        if not deltas:
            self._bound(len(data))
        self._held.append(NativeEvent(kind, data))
        if not deltas and not self._says_something(kind):
            return deltas
        events, self._held = tuple(self._held), []
        return [replace(deltas[0], native=events)] if deltas else [Delta(native=events)]

    def _says_something(self, kind: str) -> bool:
        """Whether an event of which no delta was made is a part of the answer all the same."""
        if kind == "content_block_start":
            return self._block.kind not in ("text", "thinking")
        return kind != "message_start" and self._blocks > 0

    def _deltas(self, kind: object, document: Json) -> list[Delta]:
        if kind == "content_block_delta":
            delta = document.get("delta")
            return self._piece(delta) if isinstance(delta, dict) else []
        if kind == "content_block_start":
            block = document.get("content_block")
            return self._begin(block) if isinstance(block, dict) else []
        if kind == "content_block_stop":
            return self._end_of_block()
        if kind == "message_delta":
            self._has_begun = True
            self._count(document.get("usage"))
            delta = document.get("delta")
            if isinstance(delta, dict):
                self._note_end(delta)
        elif kind == "message_start":
            self._has_begun = True
            message = document.get("message")
            self._count(message.get("usage") if isinstance(message, dict) else None)
        elif kind == "message_stop":
            self.complete = True
        return []

    def end(self) -> Iterator[Delta]:
        """The deltas after the last event; the very last one ends the answer."""
        for event in self._order.rest():
            yield from self._taken(event.get("type"), event)
        reason = self._finish_reason or "stop"
        if self._native:
            # Nothing but an end is an answer as it came; not even that is none.
            is_nothing = not self._has_begun and not self._blocks
        else:
            is_nothing = not self._characters and not self._says_anything
            if self._is_malformed and reason not in ("length", "content_filter"):
                raise UnexpectedReply(f"{self._name} sent a tool call whose arguments are not a JSON object.")
        if is_nothing:
            self._refuse_nothing(reason)
        if self._calls and reason == "stop" and self._stop is None:
            reason = "tool_calls"
        yield Delta(finish_reason=reason, usage=self.usage, stop=self._stop, native=tuple(self._held))

    def _refuse_nothing(self, reason: str) -> None:
        if reason == "content_filter":
            raise MessageRefused(f"{self._name} refuses to answer this.", param="messages")
        if reason != "length":
            raise EmptyReply(f"{self._name} sent an empty answer.")

    def _begin(self, block: dict[str, object]) -> list[Delta]:
        kind = str(block.get("type"))
        self._block = _Block(kind, begins_at=self._text_size)
        self._blocks += 1
        self._says_anything = self._says_anything or kind not in ("text", "thinking")
        if kind == "tool_use":
            self._block.call = self._calls
            self._calls += 1
            return [Delta(tool_call=ToolCallDelta(self._block.call, _text(block, "id"), _text(block, "name")))]
        if kind == "redacted_thinking":
            return [Delta(extras=sealed_detail(_text(block, "data"), self._blocks - 1))]
        # Most begin with nothing.
        return self._piece({**block, "type": f"{kind}_delta"}) if block.get(kind) else []

    def _piece(self, delta: dict[str, object]) -> list[Delta]:
        kind = delta.get("type")
        if kind == "text_delta":
            if text := self._part("text", delta):
                self._text_size += len(text)
                return [Delta(text)]
        elif kind == "thinking_delta":
            if thought := self._part("thinking", delta):
                self._block.pieces.append(thought)
                return [Delta(reasoning=thought)]
        elif kind == "input_json_delta":
            piece = self._part("partial_json", delta)
            if self._block.call >= 0 and piece:
                piece = delta["partial_json"] = self._block.end.feed(piece)
                self._block.pieces.append(piece)
                return [Delta(tool_call=ToolCallDelta(self._block.call, arguments=piece))]
        elif kind == "signature_delta":
            self._block.signature += _text(delta, "signature")
        elif kind == "citations_delta":
            citation = delta.get("citation")
            if isinstance(citation, dict):
                self._block.citations.append(citation)
        return []

    def _end_of_block(self) -> list[Delta]:
        block, self._block = self._block, _Block("")
        self._halves.clear()
        if block.kind == "thinking" and block.signature:
            return [Delta(extras=signed_detail("".join(block.pieces), block.signature, self._blocks - 1))]
        if block.kind == "tool_use":
            if not block.pieces:
                return [Delta(tool_call=ToolCallDelta(block.call, arguments="{}"))]
            is_object = block.end.begins and object_text("".join(block.pieces)) is not None
            self._is_malformed = self._is_malformed or not is_object
        cited = [self._cited(citation, block.begins_at) for citation in block.citations if citation.get("url")]
        return [Delta(extras={"annotations": cited})] if cited else []

    def _cited(self, citation: Json, begins_at: int) -> Json:
        """A citation of a page, as OpenAI writes it: the text from its block's beginning to its end rests on it."""
        return {
            "type": "url_citation",
            "url_citation": {
                "url": citation.get("url"),
                "title": citation.get("title") or "",
                "start_index": begins_at,
                "end_index": self._text_size,
            },
        }

    def _part(self, field: str, delta: dict[str, object]) -> str:
        """A field of a piece, in which half of a character is left to the piece that has the other half."""
        text = delta.get(field)
        if not isinstance(text, str):
            delta[field] = ""
            return ""
        if self._halves or not text.isascii():
            text = delta[field] = self._whole_pairs(field, text)
        self._bound(len(text))
        return text

    def _count(self, usage: object) -> None:
        """The counts so far: those of the end are of the whole message, and leave out what the beginning has told."""
        if isinstance(usage, dict):
            self._counts |= {name: count for name, count in usage.items() if count is not None}
            self.usage = usage_of(self._counts) or self.usage

    def _note_end(self, delta: Json) -> None:
        reason, stop = delta.get("stop_reason"), delta.get("stop_sequence")
        if isinstance(stop, str) and reason == "stop_sequence":
            self._stop = stop
        if reason:
            self._finish(reason)


def _text(fields: Json, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
