"""JSON in and out: for clients, for upstreams and for stores.

msgspec does the work wherever it can, several times as fast as the standard library, which takes the rest: lone
surrogates, NaN and infinities, byte order marks.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

# Unicode's other line ends. SSE doesn't know them, but clients that split a stream with str.splitlines() do.
_LINE_ENDS = [(chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029)]

# Half an escape at the end of a text that was cut off, after whole ones.
_HALF_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?$")
_LONGEST_REPAIR = 1_000_000

# A small document can't hold the event loop. A larger one does if it consists of millions of tiny values: decoding is
# one step, which takes longer for an empty list than for a page of text.
_SMALL = 128 * 1024
_MOST_VALUES = 400_000
_MOST_STRINGS = 150_000
# Decoded in the slow way as well.
_MOST_VALUES_LENIENT = 60_000
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 400

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
        # `find`, for speed: `in` raises a TypeError within, and catches it, before it looks for bytes.
        if document.find(b"null") < 0:
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
        data: The bytes. A byte order mark, NaN, numbers out of range, lone surrogates and raw control characters within
            texts are accepted; a document of hundreds of thousands of values is not.
        bad_utf8: What to do with invalid UTF-8: "replace" puts U+FFFD in its place, "strict" gives None.
    """
    document = _read_from_others(data, bad_utf8)
    return document if isinstance(document, dict) else None


def read_json_list(data: bytes) -> list[object] | None:
    """Decode a list that somebody else has written, as leniently as `read_json_object`; None if it isn't one."""
    document = _read_from_others(data, "replace")
    return document if isinstance(document, list) else None


def json_kind(data: bytes) -> str | None:
    """What kind of JSON somebody else has written, in words for a sentence; None for what isn't JSON."""
    if data.strip() == b"null":
        return "null"
    document = _read_from_others(data, "replace")
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(document))


def is_overladen(data: bytes) -> bool:
    """Whether a document consists of so many values that decoding it would hold up everybody else."""
    return len(data) > _SMALL and _values_in(data) > _MOST_VALUES_LENIENT


def _read_from_others(data: bytes, bad_utf8: str) -> object:
    values = 0 if len(data) <= _SMALL else _values_in(data)
    if values > _MOST_VALUES:
        return None
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return _read_leniently(data, bad_utf8) if values <= _MOST_VALUES_LENIENT else None


def _values_in(data: bytes) -> int:
    """About how many values a large document has; more than are ever read if it has a number of absurd length."""
    # Commas, braces and digits count outside of texts; where there are few in all, it doesn't matter where they are.
    if _marks_in(data) > _MOST_VALUES_LENIENT or _has_long_number(data):
        plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        if plain.count(b'"') > 2 * _MOST_STRINGS:
            return _MOST_VALUES + 1
        data = b" ".join(plain.split(b'"')[::2])
        if _has_long_number(data):
            return _MOST_VALUES + 1
    return _marks_in(data)


def _has_long_number(data: bytes) -> bool:
    return _LONG_NUMBER in data.translate(_DIGITS)


def _marks_in(data: bytes) -> int:
    return sum([data.count(mark) for mark in (b",", b":", b"[", b"{")])


def object_text(text: str) -> str | None:
    """The text of a JSON object, as it is wherever it is valid JSON; None if no object can be made of it.

    Nothing, null and an empty list are an object without fields. Raw line ends in texts and a text within a text are
    what some models write.
    """
    if len(text) > _SMALL and _values_in(text.encode("utf-8", "replace")) > _MOST_VALUES_LENIENT:
        return None
    try:
        if isinstance(_decode(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    value: object = text
    for _ in range(3):
        if not isinstance(value, str):
            break
        if not value.strip():
            return "{}"
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return None
    if value is None or value == []:
        return "{}"
    return _encode_anything(_without_infinities(value)) if isinstance(value, dict) else None


def repaired_object_text(text: str) -> str:
    """The text of a JSON object that was cut off, with its end made up; `{}` if nothing can be made of it."""
    found = object_text(text)
    if found is not None:
        return found
    for end in _ends(text[:_LONGEST_REPAIR]):
        found = object_text(end)
        if found is not None:
            return found
    return "{}"


def _ends(text: str) -> Iterator[str]:
    """A text that was cut off, closed where it ends, and at the last place before that where it could be."""
    closers: list[str] = []
    in_text = escaped = False
    last = ""
    for index, character in enumerate(text):
        if in_text:
            in_text = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_text = True
        elif character in "{[":
            closers.append("}" if character == "{" else "]")
        elif character in "}]" and closers:
            closers.pop()
        elif character == ",":
            last = text[:index] + "".join(reversed(closers))
    closed = "".join(reversed(closers))
    if in_text:
        # Half an escape is left out.
        whole = _HALF_ESCAPE.sub(r"\1", text)
        yield whole + '"' + closed
    yield text.rstrip().removesuffix(",") + closed
    yield last


def _read_leniently(data: bytes, bad_utf8: str) -> object:
    try:
        # Not strictly: raw line ends and tabs within texts are what servers write that put their JSON together by hand.
        return json.loads(data.decode("utf-8-sig", bad_utf8), strict=False)
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
