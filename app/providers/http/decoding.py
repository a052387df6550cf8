"""Decompresses bodies a piece at a time: a small body can hold gigabytes."""

import zlib

from app.providers.http.exceptions import DecodingError

# What requests say that the client understands.
ACCEPTED = "gzip, deflate"
_PIECE_BYTES = 64 * 1024
# A body that consists of more gzip members than this was made to take long.
_MAX_MEMBERS = 1000
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_METHOD = 8


def decoder_for(coding: bytes) -> "Decoder | None":
    """Return the decoder for a `Content-Encoding`; None for any that requests don't ask for."""
    coding = coding.strip().lower()
    if b"," in coding:
        named = [one.strip() for one in coding.split(b",")]
        coding = b",".join([one for one in named if one not in (b"", b"identity")])
    return Decoder(is_gzip=coding != b"deflate") if coding in (b"gzip", b"x-gzip", b"deflate") else None


class Decoder:
    """Decompresses one body.

    Args:
        is_gzip: False for `deflate`.
    """

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._inflater: zlib._Decompress | None = None
        self._packed = b""
        self._ended = False
        self._trailing = b""
        self._members = 0

    def feed(self, packed: bytes) -> None:
        """Add compressed bytes; `take` returns what they hold."""
        if not self._ended:
            self._packed += packed
            return
        # A second gzip member may follow the first one; anything else is padding.
        self._trailing = self._trailing[: len(_GZIP_MAGIC)] + packed
        if self._is_gzip and self._trailing.startswith(_GZIP_MAGIC):
            self._packed, self._trailing, self._ended = self._trailing, b"", False

    def take(self) -> bytes:
        """Return the next piece; empty if more has to be fed first.

        Raises:
            DecodingError: The data is damaged.
        """
        while self._packed or self._inflater is not None:
            if self._inflater is None:
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise DecodingError
                self._inflater = zlib.decompressobj(self._window_bits())
            piece = self._inflate(self._inflater)
            if piece or not self._packed:
                return piece
        return b""

    def finish(self) -> None:
        """Check that the data was complete.

        Raises:
            DecodingError: Its end is missing.
        """
        if self._inflater is not None:
            raise DecodingError

    def _window_bits(self) -> int:
        if self._is_gzip:
            return _GZIP
        # "deflate" means the zlib format; some servers send raw deflate data instead.
        return zlib.MAX_WBITS if self._packed[0] & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS

    def _inflate(self, inflater: "zlib._Decompress") -> bytes:
        try:
            piece = inflater.decompress(self._packed, _PIECE_BYTES)
        except zlib.error as error:
            raise DecodingError from error
        self._packed = inflater.unconsumed_tail
        if inflater.eof:
            self._inflater, self._ended = None, True
            self.feed(inflater.unused_data)
        return piece
