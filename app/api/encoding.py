"""JSON as it goes out: compact, in UTF-8, and safe to stand in a line of a stream. Pure."""

import json

# Unicode's further line ends, which are none to SSE but to clients that split the stream with str.splitlines().
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_bytes(value: object) -> bytes:
    """A document. What is no character (a lone surrogate) becomes a question mark."""
    text = _encode(value)
    if not text.isascii():
        text = text.translate(_LINE_ENDS)
    return text.encode("utf-8", "replace")
