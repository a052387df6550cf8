"""Writes the chunks of a streamed legacy completion. Pure."""

import time
from collections.abc import Sequence
from typing import ClassVar

from app.api.completions.errors import error_object
from app.api.completions.write import finish_reason
from app.api.request import unique_id
from app.api.wire.openai import DONE, usage_object
from app.chat.events import Ending, Opening
from app.domain.chat import Delta, Extras, NativeEvent, ToolCallDelta
from app.domain.errors import GatewayError
from app.domain.json import json_bytes


class CompletionEncoder:
    """Writes one completion's chunks. Thoughts and tools have no place in this dialect.

    Args:
        opening: How the call is answered.
        include_usage: Send the usage in a chunk of its own, and `usage: null` in all before.
        echo: The prompt, if the answer is to begin with it.
    """

    ping: ClassVar[bytes] = b": ping\n\n"

    def __init__(self, opening: Opening, *, include_usage: bool, echo: str = "") -> None:
        head = {
            "id": unique_id("cmpl-", 12),
            "object": "text_completion",
            "created": int(time.time()),
            "model": opening.model,
        }
        self._head = b"data: " + json_bytes(head)[:-1]
        self._usage_null = b',"usage":null' if include_usage else b""
        self._include_usage = include_usage
        self._echo = echo
        self._before_text = self._head + b',"choices":[{"index":0,"text":'

    def opening(self) -> bytes:
        """The prompt, if it is wanted back."""
        return self.text(self._echo) if self._echo else b""

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._before_text + json_bytes(text) + self._after_text(b"null")

    def reasoning(self, text: str) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing."""
        return b""

    def refusal(self, text: str) -> bytes:
        """What is said in place of an answer is text, too: here there is nothing else."""
        return self.text(text)

    def extras(self, text: str, extras: Extras) -> bytes:  # noqa: ARG002 - the encoders' common form
        """The text; there is no place for what a provider adds."""
        return self.text(text) if text else b""

    def other_choice(self, delta: Delta) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: here nobody asks for several answers at a time."""
        return b""

    def native(self, events: Sequence[NativeEvent]) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing: requests of this dialect aren't handed on in its own form."""
        return b""

    def tool_call(self, part: ToolCallDelta) -> bytes:  # noqa: ARG002 - the encoders' common form
        """Nothing."""
        return b""

    def ending(self, ending: Ending) -> bytes:
        """The chunk with the finish reason, the usage if it is wanted, and the end of the stream."""
        last = self._before_text + b'""' + self._after_text(b'"%b"' % finish_reason(ending).encode())
        if self._include_usage:
            last += self._head + b',"choices":[],"usage":' + json_bytes(usage_object(ending.usage)) + b"}\n\n"
        return last + DONE

    def failure(self, error: GatewayError) -> bytes:
        """An error event; no `[DONE]` follows, so that no client takes the answer for complete."""
        return b"data: " + json_bytes({"error": error_object(error)}) + b"\n\n"

    def _after_text(self, reason: bytes) -> bytes:
        return b',"logprobs":null,"finish_reason":' + reason + b"}]" + self._usage_null + b"}\n\n"
