"""JSON as it goes out: compact, in UTF-8, and safe to stand in a line of a stream. Pure."""

import json
import math

import msgspec

# Unicode's further line ends, which are none to SSE but to clients that split the stream with str.splitlines().
_LINE_ENDS = [(chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029)]
_encode = msgspec.json.Encoder().encode
_encode_leniently = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_bytes(value: object) -> bytes:
    """A document. What is no character (a lone surrogate) becomes a question mark, what is no number null."""
    try:
        document = _encode(value)
    except UnicodeEncodeError:
        document = _encode_leniently(_finite(value)).encode("utf-8", "replace")
    if not document.isascii():
        for line_end, escaped in _LINE_ENDS:
            document = document.replace(line_end, escaped)
    return document


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
