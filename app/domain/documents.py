"""JSON documents as they are stored: versioned, and compressed if they are large.

The first byte is the version of the format, the second says how the rest is packed. When an update is rolled back, what
the newer version has written is unreadable; callers treat it as missing instead of guessing.
"""

import zlib
from typing import Any

from app.domain.json import exact_json_bytes, read_exact_json

_VERSION = b"\x01"
_PLAIN = _VERSION + b"j"
_COMPRESSED = _VERSION + b"z"
# Kept responses were once stored without a mark: the second byte is the first of zlib's own header.
_COMPRESSED_UNMARKED = _VERSION + b"\x78"

# Compressing smaller documents saves next to nothing; the fastest level already halves a conversation.
_WORTH_COMPRESSING = 1024
_LEVEL = 1
# Nothing that the gateway stores is longer, in bytes.
_LONGEST = 128 * 1024 * 1024


class UnreadableDocument(Exception):
    """The bytes are damaged or of an unknown version. The message says which, and quotes none of them."""


def pack(value: object) -> bytes:
    """Encode a JSON value for a store; `unpack` gives an equal one."""
    data = exact_json_bytes(value)
    if len(data) <= _WORTH_COMPRESSING:
        return _PLAIN + data
    return _COMPRESSED + zlib.compress(data, _LEVEL)


def unpack(data: bytes) -> Any:
    """Decode a stored value.

    Raises:
        UnreadableDocument: Another version wrote it, or it is damaged.
    """
    head, body = data[:2], data[2:]
    if head not in (_PLAIN, _COMPRESSED, _COMPRESSED_UNMARKED):
        raise UnreadableDocument(f"unknown format {head.hex() or 'empty'}")
    try:
        if head == _COMPRESSED:
            body = _decompressed(body)
        elif head == _COMPRESSED_UNMARKED:
            body = _decompressed(data[1:])
        return read_exact_json(body)
    except (ValueError, RecursionError, zlib.error) as error:
        # Not chained: the errors of these libraries quote what they stumbled over.
        raise UnreadableDocument(f"damaged ({type(error).__name__})") from None


def _decompressed(data: bytes) -> bytes:
    """As `zlib.decompress`, but a small document doesn't become one of gigabytes."""
    inflater = zlib.decompressobj()
    document = inflater.decompress(data, _LONGEST)
    if inflater.unconsumed_tail:
        raise UnreadableDocument("too large")
    if not inflater.eof:
        raise zlib.error("its end is missing")
    return document
