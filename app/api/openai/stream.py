"""Writes the chunks of a streamed chat completion. Pure."""

import time
from collections.abc import Collection, Sequence
from typing import ClassVar

import msgspec

from app.api.error_responses import openai_error_object
from app.api.request import unique_id
from app.api.wire.custom import custom_input
from app.api.wire.openai import DONE, usage_object
from app.chat.events import Ending, Opening
from app.domain.chat import Delta, Extras, FinishReason, NativeEvent, ToolCallDelta
from app.domain.errors import GatewayError
from app.domain.json import json_bytes

_encode = msgspec.json.Encoder().encode


class ChunkEncoder:
    """Writes one answer's chunks.

    What doesn't change from chunk to chunk is encoded once: a piece of text costs its own encoding and two
    concatenations, where encoding each chunk as a whole would cost five times as much.

    Args:
        opening: How the call is answered.
        include_usage: Send the usage in a chunk of its own, and `usage: null` in all before.
        legacy: The client speaks of `function_call`, as was usual before there were `tool_calls`.
        custom: The names of custom tools.
    """

    ping: ClassVar[bytes] = b": ping\n\n"

    def __init__(
        self, opening: Opening, *, include_usage: bool, legacy: bool = False, custom: Collection[str] = ()
    ) -> None:
        head = {
            "id": unique_id("chatcmpl-", 12),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": opening.model,
        }
        self._head = b"data: " + json_bytes(head)[:-1]
        self._usage_null = b',"usage":null' if include_usage else b""
        self._include_usage = include_usage
        self._legacy = legacy
        self._custom = custom
        # Of a call of a custom tool that isn't complete: its index, and the pieces of its arguments.
        self._custom_index: int | None = None
        self._custom_pieces: list[str] = []
        # The answers beside the first that have been begun.
        self._others: set[int] = set()
        self._index = 0
        self._before = self._head + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + self._usage_null + b"}\n\n"
        self._before_text = self._before + b'{"content":'
        self._after_text = b"}" + self._after

    def opening(self) -> bytes:
        """The chunk that says whose message it is."""
        return self._before + b'{"role":"assistant","content":""}' + self._after

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        # ASCII has nothing that `json_bytes` would have to look after: a call less for each piece.
        return self._before_text + (_encode(text) if text.isascii() else json_bytes(text)) + self._after_text

    def reasoning(self, text: str) -> bytes:
        """A chunk of thoughts, under the name that most upstreams and clients have agreed on."""
        return self._before + b'{"reasoning_content":' + json_bytes(text) + b"}" + self._after

    def refusal(self, text: str) -> bytes:
        """A chunk of what is said in place of an answer."""
        return self._before + b'{"refusal":' + json_bytes(text) + b"}" + self._after

    def extras(self, text: str, extras: Extras) -> bytes:
        """A chunk of text with what the provider added, in the fields in which it came."""
        added = {name: value for name, value in extras.items() if name != "logprobs"}
        delta = json_bytes({"content": text, **added} if text else added)
        after = self._after
        if "logprobs" in extras:
            after = after.replace(b'"logprobs":null', b'"logprobs":' + json_bytes(extras["logprobs"]), 1)
        return self._before + delta + after

    def other_choice(self, delta: Delta) -> bytes:
        """The chunks of a part of another answer than the first."""
        self._turn_to(delta.choice)
        chunks = b"" if delta.choice in self._others else self.opening()
        self._others.add(delta.choice)
        if delta.reasoning:
            chunks += self.reasoning(delta.reasoning)
        if delta.tool_call is not None:
            chunks += self.tool_call(delta.tool_call)
        if delta.refusal:
            chunks += self.refusal(delta.refusal)
        if delta.text or delta.extras:
            chunks += self.extras(delta.text, delta.extras or {})
        if delta.finish_reason:
            chunks += self._last(delta.finish_reason)
        self._turn_to(0)
        return chunks

    def native(self, events: Sequence[NativeEvent]) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: requests of this dialect aren't handed on in its own form."""
        return b""

    def tool_call(self, part: ToolCallDelta) -> bytes:
        """A chunk of a tool call; the older form knows one call only."""
        if self._legacy and part.index:
            return b""
        if self._custom:
            if part.name is not None and part.name in self._custom:
                return self._custom_end() + self._custom_begin(part)
            if part.index == self._custom_index:
                self._custom_pieces.append(part.arguments)
                return b""
        function: dict[str, object] = {"arguments": part.arguments}
        if part.name is not None:
            function = {"name": part.name, **function}
        if self._legacy:
            return self._before + json_bytes({"function_call": function}) + self._after
        call: dict[str, object] = {"index": part.index}
        if part.id is not None:
            call |= {"id": part.id, "type": "function"}
        call["function"] = function
        if part.extras:
            call |= part.extras
        return self._custom_end() + self._call(call)

    def ending(self, ending: Ending) -> bytes:
        """The chunk with the finish reason, the usage if it is wanted, and the end of the stream."""
        last = self._custom_end() if self._custom_index is not None else b""
        last += self._last(ending.completion.finish_reason)
        if self._include_usage:
            last += self._head + b',"choices":[],"usage":' + json_bytes(usage_object(ending.usage)) + b"}\n\n"
        return last + DONE

    def _last(self, reason: FinishReason) -> bytes:
        """The chunk with the finish reason."""
        word = "function_call" if self._legacy and reason == "tool_calls" else reason
        choice = b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":"%b"}' % (self._index, word.encode())
        return self._head + b',"choices":[' + choice + b"]" + self._usage_null + b"}\n\n"

    def _turn_to(self, index: int) -> None:
        """Write the chunks of this one of several answers from now on."""
        self._index = index
        self._before = self._head + b',"choices":[{"index":%d,"delta":' % index
        self._before_text = self._before + b'{"content":'

    def failure(self, error: GatewayError) -> bytes:
        """An error event; no `[DONE]` follows, so that no client takes the answer for complete."""
        return b"data: " + json_bytes({"error": openai_error_object(error)}) + b"\n\n"

    def _call(self, call: dict[str, object]) -> bytes:
        return self._before + json_bytes({"tool_calls": [call]}) + self._after

    def _custom_begin(self, part: ToolCallDelta) -> bytes:
        """The chunk that begins a call of a custom tool, whose input is known when its arguments are complete."""
        self._custom_index, self._custom_pieces = part.index, [part.arguments]
        custom = {"name": part.name, "input": ""}
        return self._call({"index": part.index, "id": part.id, "type": "custom", "custom": custom})

    def _custom_end(self) -> bytes:
        """The chunk with the input of the custom tool's call that is open, if there is one."""
        index, self._custom_index = self._custom_index, None
        if index is None:
            return b""
        return self._call({"index": index, "custom": {"input": custom_input("".join(self._custom_pieces))}})
