"""Request bodies that come compressed."""

import zlib
from collections.abc import Callable

from starlette.types import Message, Receive

from app.domain.errors import BodyTooLarge, InvalidRequest, UnsupportedCoding

# What can be read, as `Accept-Encoding` tells it.
CODINGS = b"gzip, deflate"

_KNOWN = frozenset({"gzip", "x-gzip", "deflate"})
_AS_IT_IS = frozenset({"", "identity"})
# Some proxies compress what is compressed; more than that nobody means.
_MAX_CODINGS = 2
_GZIP_WINDOW, _ZLIB_WINDOW, _BARE_WINDOW = 31, 15, -15
_DEFLATE_METHOD = 8


def decoded(receive: Receive, header: bytes, *, max_bytes: int, too_large: Callable[[], BodyTooLarge]) -> Receive:
    """A `receive` that gives a body as it was before it was compressed.

    It is decompressed piece by piece, and no further than it may be large.

    Args:
        header: The `Content-Encoding`.
        max_bytes: The largest body, decompressed.
        too_large: Makes the error for a larger one.

    Raises:
        UnsupportedCoding: It can't be read.
    """
    names = [name.strip() for name in header.decode("latin-1").lower().split(",")]
    codings = [name for name in names if name not in _AS_IT_IS]
    if not codings:
        return receive
    if len(codings) > _MAX_CODINGS or not _KNOWN.issuperset(codings):
        raise UnsupportedCoding(
            f"A request body with Content-Encoding {', '.join(codings)[:100]!r} can't be read. "
            f"Send it as it is, or in one of these: {CODINGS.decode()}."
        )
    decoders = [_BodyDecoder(coding) for coding in reversed(codings)]
    left = max_bytes

    async def receive_decoded() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] != "http.request":
            return message
        body: bytes = message.get("body", b"")
        for decoder in decoders:
            # One byte more than may be shows that there is more.
            body = decoder.decode(body, left + 1)
            if len(body) > left:
                raise too_large()
            if not message.get("more_body", False):
                decoder.end()
        left -= len(body)
        return {**message, "body": body}

    return receive_decoded


class _BodyDecoder:
    """Decompresses one body, piece by piece."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._decompressor: zlib._Decompress | None = None

    def decode(self, piece: bytes, most: int) -> bytes:
        """What a piece of the body says, up to so many bytes.

        Raises:
            InvalidRequest: The body isn't compressed as it says.
        """
        if not piece:
            return b""
        if self._decompressor is None:
            self._decompressor = zlib.decompressobj(self._window(piece))
        try:
            text = self._decompressor.decompress(piece, most)
        except zlib.error as error:
            raise InvalidRequest(f"The request body is not in {self._coding}, as its Content-Encoding says.") from error
        if self._decompressor.unused_data:
            raise InvalidRequest(f"There is more behind the end of the request body's {self._coding}.")
        return text

    def end(self) -> None:
        """There are no further pieces.

        Raises:
            InvalidRequest: The body isn't complete.
        """
        if self._decompressor is not None and not self._decompressor.eof:
            raise InvalidRequest(f"The request body's {self._coding} breaks off.")

    def _window(self, piece: bytes) -> int:
        if self._coding != "deflate":
            return _GZIP_WINDOW
        # By the standard it has zlib's head, but some clients send it bare.
        return _ZLIB_WINDOW if piece[0] & 0x0F == _DEFLATE_METHOD else _BARE_WINDOW
