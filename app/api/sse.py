"""What the dialects' event encoders share. Pure."""

import json

# Unicode's further line ends, which are none to SSE but to clients that split the stream with str.splitlines().
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_line(value: object) -> bytes:
    """A value as JSON that stays on one line, whatever a client takes for a line's end."""
    text = _encode(value)
    if not text.isascii():
        text = text.translate(_LINE_ENDS)
    return text.encode("utf-8", "replace")
