"""The chunks of a streamed completion, as bytes. Pure."""

from typing import ClassVar

from app.api.encoding import json_bytes
from app.api.errors import error_body
from app.api.wire import DONE, usage_object
from app.chat.events import Ending
from app.domain.chat import FinishReason, ToolCallDelta
from app.domain.errors import GatewayError


def finish_reason(ending: Ending) -> FinishReason:
    """The `finish_reason`; this dialect knows no tools."""
    return "stop" if ending.finish_reason == "tool_calls" else ending.finish_reason


class CompletionEncoder:
    """Writes one completion's chunks. Thoughts and tools have no place in this dialect.

    Args:
        completion_id: The `id` of all chunks.
        created: Seconds since the epoch, in all chunks.
        model: The model that answers.
        include_usage: Send the usage in a chunk of its own, and `usage: null` in all before.
        echo: The prompt, if the answer is to begin with it.
    """

    ping: ClassVar[bytes] = b": ping\n\n"

    def __init__(self, *, completion_id: str, created: int, model: str, include_usage: bool, echo: str = "") -> None:
        head = {"id": completion_id, "object": "text_completion", "created": created, "model": model}
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
        return b"data: " + error_body(error) + b"\n\n"

    def _after_text(self, reason: bytes) -> bytes:
        return b',"logprobs":null,"finish_reason":' + reason + b"}]" + self._usage_null + b"}\n\n"
