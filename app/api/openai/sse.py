"""The chunks of a streamed chat completion, as bytes. Pure."""

import json

from app.api.errors import error_body
from app.chat.service import Ending
from app.domain.chat import Usage
from app.domain.errors import GatewayError

DONE = b"data: [DONE]\n\n"

# Unicode's further line ends, which are none to SSE but to clients that split the stream with str.splitlines().
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_json_string = json.JSONEncoder(ensure_ascii=False).encode


def usage_object(usage: Usage) -> dict[str, int]:
    """The `usage` of an answer."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


class ChunkEncoder:
    """Writes one answer's chunks.

    All that doesn't change from chunk to chunk is made into bytes once: a piece of text costs its own encoding and two
    concatenations.

    Args:
        completion_id: The `id` of all chunks.
        created: Seconds since the epoch, in all chunks.
        model: The model that answers.
        include_usage: Send the usage in a chunk of its own, and `usage: null` in all before.
    """

    def __init__(self, *, completion_id: str, created: int, model: str, include_usage: bool) -> None:
        head = json.dumps(
            {"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        self._head = b"data: " + head[:-1].encode()
        self._usage_null = b',"usage":null' if include_usage else b""
        self._include_usage = include_usage
        self._before_text = self._head + b',"choices":[{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + self._usage_null + b"}\n\n"

    def opening(self) -> bytes:
        """The chunk that says whose message it is."""
        choice = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return self._head + b',"choices":[' + choice + b"]" + self._usage_null + b"}\n\n"

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        data = _json_string(text)
        if not text.isascii():
            data = data.translate(_LINE_ENDS)
        return self._before_text + data.encode("utf-8", "replace") + self._after_text

    def ending(self, ending: Ending) -> bytes:
        """The chunk with the finish reason, the usage if it is wanted, and the end of the stream."""
        choice = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"%b"}' % ending.finish_reason.encode()
        last = self._head + b',"choices":[' + choice + b"]" + self._usage_null + b"}\n\n"
        if self._include_usage:
            usage = json.dumps(usage_object(ending.usage), separators=(",", ":")).encode()
            last += self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        return last + DONE

    def failure(self, error: GatewayError) -> bytes:
        """An error event; no `[DONE]` follows, so that no client takes the answer for complete."""
        return b"data: " + error_body(error) + b"\n\n"
