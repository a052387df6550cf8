"""Writes the events of a streamed message. Pure."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from app.api.anthropic.errors import error_body
from app.api.anthropic.write import new_message_id, stop_reason, usage_object
from app.chat.events import Ending, Opening
from app.domain.chat import Delta, Extras, NativeEvent, ToolCallDelta, Usage
from app.domain.errors import GatewayError
from app.domain.json import json_bytes, read_json_object

_Kind = Literal["text", "thinking", "tool_use"]


class MessageEncoder:
    """Writes one message's events; keeps in mind which block is open.

    Args:
        opening: How the call is answered. Its token count is an estimate; the end tells what was counted.
        show_reasoning: Write what is thought into blocks of its own, instead of leaving it out.
        request_id: For the event of a failure.
    """

    ping: ClassVar[bytes] = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, opening: Opening, *, show_reasoning: bool, request_id: str = "") -> None:
        self._message: dict[str, object] = {
            "id": new_message_id(),
            "type": "message",
            "role": "assistant",
            "model": opening.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_object(Usage(opening.prompt.tokens, 0)),
        }
        self._show_reasoning = show_reasoning
        self._request_id = request_id
        self._blocks = 0
        self._open: _Kind | None = None
        self._call: int | None = None
        self._before = b""
        # The upstream's own beginning is to come, unless something else has to be written before.
        self._waits = opening.native
        self._native_end: dict[str, Any] | None = None

    def opening(self) -> bytes:
        """The event that says whose message it is."""
        return b"" if self._waits else _event("message_start", {"message": self._message})

    def text(self, text: str) -> bytes:
        """A piece of text."""
        if not text:
            return b""
        begin = b"" if self._open == "text" else self._begin("text", {"text": ""}, b'"text_delta","text":')
        return begin + self._delta(text)

    def reasoning(self, text: str) -> bytes:
        """A piece of what is thought; if it isn't shown, a sign of life, so that no proxy takes the stream for dead."""
        if not self._show_reasoning:
            return self.ping
        if not text:
            return b""
        begin = b""
        if self._open != "thinking":
            begin = self._begin("thinking", {"thinking": "", "signature": ""}, b'"thinking_delta","thinking":')
        return begin + self._delta(text)

    def refusal(self, text: str) -> bytes:
        """A piece of what is said in place of an answer: text, of which the stop reason says what it is."""
        return self.text(text)

    def extras(self, text: str, extras: Extras) -> bytes:  # noqa: ARG002 - the encoders' common form
        """The text; there is no place for what a provider adds."""
        return self.text(text)

    def other_choice(self, delta: Delta) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: here nobody asks for several answers at a time."""
        return b""

    def native(self, events: Sequence[NativeEvent]) -> bytes:
        """Events of the upstream's own: as they came, but for the model's name. The end is kept for `ending`."""
        parts = [self._as_it_came(event) for event in events]
        if self._waits:
            self._waits = False
            parts.insert(0, self.opening())
        return b"".join(parts)

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A part of a tool call; each call is a block."""
        begin = b""
        if self._open != "tool_use" or self._call != part.index:
            self._call = part.index
            begin = self._begin(
                "tool_use",
                {"id": part.id or "", "name": part.name or "", "input": {}, **(part.extras or {})},
                b'"input_json_delta","partial_json":',
            )
        return begin + (self._delta(part.arguments) if part.arguments else b"")

    def ending(self, ending: Ending) -> bytes:
        """The end of the last block, why the answer ended, the usage, and the end of the message."""
        if self._native_end is not None:
            end = _with_an_end(self._native_end, ending)
            return self._end() + _event("message_delta", end) + _event("message_stop", {})
        reason = stop_reason(ending)
        stop = ending.completion.stop if reason == "stop_sequence" else None
        delta = {"stop_reason": reason, "stop_sequence": stop}
        last = _event("message_delta", {"delta": delta, "usage": usage_object(ending.usage)})
        # An answer of nothing at all has not begun yet.
        begin = _event("message_start", {"message": self._message}) if self._waits else b""
        return begin + self._end() + last + _event("message_stop", {})

    def failure(self, error: GatewayError) -> bytes:
        """An error event; no `message_stop` follows, so that no client takes the answer for complete."""
        return b"event: error\ndata: " + error_body(error, self._request_id) + b"\n\n"

    def _as_it_came(self, event: NativeEvent) -> bytes:
        if event.type == "message_start":
            return self._native_opening(event.data)
        if event.type == "message_delta":
            self._native_end = _both(self._native_end, read_json_object(event.data) or {})
            return b""
        if event.type == "message_stop":
            return b""
        if event.type == "content_block_start":
            self._blocks += 1
        return b"event: %b\ndata: %b\n\n" % (event.type.encode(), event.data)

    def _native_opening(self, data: bytes) -> bytes:
        if not self._waits:
            return b""  # it has begun: an upstream that was asked before was silent for too long
        self._waits = False
        begun = read_json_object(data) or {}
        message = begun.get("message")
        given = message if isinstance(message, dict) else {}
        return _event("message_start", {**begun, "message": _filled(given, self._message)})

    def _begin(self, kind: _Kind, content: dict[str, object], delta: bytes) -> bytes:
        """Open a block, after the one before has been closed.

        Args:
            delta: How the deltas of such a block begin, up to their text: all that doesn't change is made only once.
        """
        end = self._end()
        if self._waits:
            self._waits = False
            end += self.opening()
        index = self._blocks
        self._blocks += 1
        self._open = kind
        self._before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b'
            % (index, delta)
        )
        block = {"index": index, "content_block": {"type": kind, **content}}
        return end + _event("content_block_start", block)

    def _end(self) -> bytes:
        if self._open is None:
            return b""
        index, was_thinking, self._open = self._blocks - 1, self._open == "thinking", None
        end = _event("content_block_stop", {"index": index})
        if was_thinking:
            # Clients wait for one before they take a thought for complete.
            signature = {"index": index, "delta": {"type": "signature_delta", "signature": ""}}
            return _event("content_block_delta", signature) + end
        return end

    def _delta(self, text: str) -> bytes:
        return self._before + json_bytes(text) + b"}}\n\n"


def _filled(given: dict[str, Any], own: dict[str, object]) -> dict[str, object]:
    """An upstream's beginning of a message, with what clients can't do without."""
    message = {**own, **{name: value for name, value in given.items() if value is not None}, "model": own["model"]}
    if not isinstance(message["content"], list):
        message["content"] = []
    if not _counts(message["usage"], "input_tokens", "output_tokens"):
        message["usage"] = own["usage"]
    return message


def _with_an_end(last: dict[str, Any], ending: Ending) -> dict[str, Any]:
    """An upstream's end of a message, with what clients can't do without."""
    delta = last.get("delta")
    if not isinstance(delta, dict) or not isinstance(delta.get("stop_reason"), str):
        given = delta if isinstance(delta, dict) else {}
        last = {**last, "delta": {"stop_sequence": None, **given, "stop_reason": stop_reason(ending)}}
    return last if _counts(last.get("usage"), "output_tokens") else {**last, "usage": usage_object(ending.usage)}


def _counts(usage: object, *names: str) -> bool:
    return isinstance(usage, dict) and all(isinstance(usage.get(name), int) for name in names)


def _both(before: dict[str, Any] | None, last: dict[str, Any]) -> dict[str, Any]:
    """What two ends of one message say together: some upstreams tell the usage by itself."""
    if before is None:
        return last
    both = {**before, **last}
    for name in ("delta", "usage"):
        parts = [part for part in (before.get(name), last.get(name)) if isinstance(part, dict)]
        if parts:
            both[name] = {key: value for part in parts for key, value in part.items() if value is not None}
    return both


def _event(kind: str, fields: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json_bytes({"type": kind, **fields}))
