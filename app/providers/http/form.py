"""HTML forms as they go over the wire, at a fraction of the cost of `urllib.parse.urlencode`."""

import re
import string
from collections.abc import Mapping

_SAFE = (string.ascii_letters + string.digits + "_.-~").encode()
# The space comes last and by itself: it becomes a plus.
_OTHERS = re.compile(rb"[^%b ]+" % re.escape(_SAFE))
_TABLE = tuple(bytes((byte,)) if byte in _SAFE else b"+" if byte == 0x20 else b"%%%02X" % byte for byte in range(256))
_FEW = 12


def encode_form(form: Mapping[str, str]) -> bytes:
    """The body of a form in UTF-8; what can't be encoded (lone surrogates) becomes a question mark."""
    return b"&".join([b"%b=%b" % (_quoted(name), _quoted(value)) for name, value in form.items()])


def _quoted(text: str) -> bytes:
    """As `urllib.parse.quote_plus` does it, in the way that is fastest for what there is to quote."""
    data = text.encode("utf-8", "replace")
    others = data.translate(None, _SAFE)
    if not others:
        return data
    if not text.isascii() and 2 * len(others) > len(data):
        # Chinese, say: long runs, each written by one call.
        return _OTHERS.sub(_hexadecimal, data).replace(b" ", b"+")
    distinct = set(others)
    if len(distinct) <= _FEW:
        return _replaced(data, distinct)
    return b"".join(map(_TABLE.__getitem__, data))


def _replaced(data: bytes, others: set[int]) -> bytes:
    """One pass for each character that occurs."""
    if 0x25 in others:  # first, for the others put percent signs in
        data = data.replace(b"%", b"%25")
    for other in others - {0x20, 0x25}:
        data = data.replace(bytes((other,)), b"%%%02X" % other)
    return data.replace(b" ", b"+")


def _hexadecimal(run: re.Match[bytes]) -> bytes:
    return b"%" + run[0].hex("%").upper().encode()
