"""JSON as it goes out: compact, in UTF-8, and safe to stand in a line of a stream. Pure."""

import json
import math

# Unicode's further line ends, which are none to SSE but to clients that split the stream with str.splitlines().
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_bytes(value: object) -> bytes:
    """A document. What is no character (a lone surrogate) becomes a question mark, what is no number null."""
    try:
        text = _encode(value)
    except ValueError:
        # A client's own `1e999`, in a schema that comes back with the answer.
        text = _encode(_finite(value))
    if not text.isascii():
        text = text.translate(_LINE_ENDS)
    return text.encode("utf-8", "replace")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
