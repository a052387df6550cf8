"""Unpacks answers that come compressed, a piece at a time: a small answer can hold gigabytes."""

import zlib
from collections.abc import Mapping

from app.domain.errors import UnexpectedReply

# What requests say that we understand.
ACCEPTED = "gzip, deflate"
_PIECE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_BEGINS = b"\x1f\x8b"
_DEFLATED = 8


def decoder_for(headers: Mapping[str, str]) -> "Decoder | None":
    """What unpacks an answer with these headers; None if it isn't packed in a way that we have asked for."""
    said = headers.get("content-encoding")
    if not said:
        return None
    coding = said.strip().lower()
    return Decoder(coding) if coding in ("gzip", "x-gzip", "deflate") else None


class Decoder:
    """Unpacks one answer.

    Args:
        coding: As `Content-Encoding` names it.
    """

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding != "deflate"
        self._inflater: zlib._Decompress | None = None
        self._packed = b""
        self._ended = False
        self._behind = b""

    def feed(self, packed: bytes) -> None:
        """Take what has come in; `take` gives what is in it."""
        if not self._ended:
            self._packed += packed
            return
        # After its end there may be a second archive; anything else there is padding.
        self._behind = self._behind[: len(_GZIP_BEGINS)] + packed
        if self._is_gzip and self._behind.startswith(_GZIP_BEGINS):
            self._packed, self._behind, self._ended = self._behind, b"", False

    def take(self) -> bytes:
        """The next piece of what has been fed; none at all if more has to be fed.

        Raises:
            UnexpectedReply: It can't be unpacked.
        """
        while self._packed or self._inflater is not None:
            if self._inflater is None:
                self._inflater = zlib.decompressobj(self._format())
            piece = self._inflate(self._inflater)
            if piece or not self._packed:
                return piece
        return b""

    def finish(self) -> None:
        """Nothing more will be fed.

        Raises:
            UnexpectedReply: Something is missing.
        """
        if self._inflater is not None:
            raise _damaged()

    def _format(self) -> int:
        if self._is_gzip:
            return _GZIP
        # "deflate" means zlib's format; some servers send what is inside of it.
        return zlib.MAX_WBITS if self._packed[0] & 0x0F == _DEFLATED else -zlib.MAX_WBITS

    def _inflate(self, inflater: "zlib._Decompress") -> bytes:
        try:
            piece = inflater.decompress(self._packed, _PIECE)
        except zlib.error as error:
            raise _damaged() from error
        self._packed = inflater.unconsumed_tail
        if inflater.eof:
            self._inflater, self._ended = None, True
            self.feed(inflater.unused_data)
        return piece


def _damaged() -> UnexpectedReply:
    return UnexpectedReply("The upstream's answer can't be unpacked.")
