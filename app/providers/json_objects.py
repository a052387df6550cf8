"""JSON that upstreams send, read fast if it is as it should be, and else as leniently as can be. Pure."""

import json
from typing import Literal

import msgspec

_DECODER = msgspec.json.Decoder()


def json_object(data: bytes, *, bad_utf8: Literal["strict", "replace"] = "replace") -> dict[str, object] | None:
    """The JSON object that some bytes are, or None.

    Args:
        bad_utf8: "strict" takes nothing that has bytes in it that are no UTF-8; else U+FFFD stands for them.
    """
    try:
        document = _DECODER.decode(data)
    except (ValueError, RecursionError):
        document = _leniently(data, bad_utf8)
    return document if isinstance(document, dict) else None


def _leniently(data: bytes, bad_utf8: str) -> object:
    """With what msgspec doesn't take: a byte order mark, NaN, numbers without bounds, halves of surrogate pairs."""
    try:
        return json.loads(data.decode("utf-8-sig", bad_utf8))
    except (ValueError, RecursionError):
        return None
