"""JSON in and out: for clients, for upstreams and for stores.

msgspec does the work wherever it can, several times as fast as the standard library, which takes the rest: lone
surrogates, NaN and infinities, byte order marks.
"""

import json
import math
from typing import Any, Literal

import msgspec

# Unicode's other line ends. SSE doesn't know them, but clients that split a stream with str.splitlines() do.
_LINE_ENDS = [(chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029)]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_encode_anything = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_strictly = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_bytes(value: object) -> bytes:
    """Encode for clients: always valid UTF-8, and free of anything that could end a line of a stream.

    Lone surrogates become question marks; NaN and infinities become null.
    """
    try:  # once more than in `lenient_json_bytes`: calling it costs a fifth of encoding a short text
        document = _encode(value)
    except UnicodeEncodeError:
        document = _encode_replacing(value)
    if not document.isascii():
        for line_end, escaped in _LINE_ENDS:
            document = document.replace(line_end, escaped)
    return document


def lenient_json_bytes(value: object) -> bytes:
    """Encode as `json_bytes` does, but leave Unicode's line ends as they are."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode_replacing(value)


def strict_json_bytes(value: object) -> bytes:
    """Encode what somebody else is to take at its word. Lone surrogates become question marks.

    Raises:
        ValueError: The value has NaN or an infinity in it, something that isn't JSON, or too many levels.
    """
    try:
        document = _encode(value)
        # msgspec writes NaN as null. Without a null there was none, and the slow encoder needn't look.
        if b"null" not in document:
            return document
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    try:
        return _encode_strictly(value).encode("utf-8", "replace")
    except (TypeError, RecursionError) as error:
        raise ValueError("not a JSON value") from error


def exact_json_bytes(value: object) -> bytes:
    """Encode for a store: `read_exact_json` gives back equal texts, lone surrogates included."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # Not as \\u escapes: two lone surrogates side by side would be read as one character.
        return _encode_anything(value).encode("utf-8", "surrogatepass")


def read_exact_json(data: bytes) -> Any:
    """Decode what `exact_json_bytes` has written.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return _decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return json.loads(data.decode("utf-8", "surrogatepass"))


def read_json_object(data: bytes, *, bad_utf8: Literal["strict", "replace"] = "replace") -> dict[str, object] | None:
    """Decode an object that somebody else has written, as leniently as possible; None if it isn't one.

    Args:
        data: The bytes. A byte order mark, NaN, numbers out of range and lone surrogates are accepted.
        bad_utf8: What to do with invalid UTF-8: "replace" puts U+FFFD in its place, "strict" gives None.
    """
    try:
        document = _decode(data)
    except (ValueError, RecursionError):
        document = _read_leniently(data, bad_utf8)
    return document if isinstance(document, dict) else None


def _read_leniently(data: bytes, bad_utf8: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig", bad_utf8))
    except (ValueError, RecursionError):
        return None


def _encode_replacing(value: object) -> bytes:
    return _encode_strictly(_without_infinities(value)).encode("utf-8", "replace")


def _without_infinities(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_infinities(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
