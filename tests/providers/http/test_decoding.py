"""Compressed bodies: every coding that is asked for, damaged ones, and bombs."""

import gzip
import zlib

import pytest

from app.providers.http.exceptions import DecodingError, ReplyTooLong
from tests.providers.http.server import bytewise, client, reply, server

SAID = b"How are you? " * 1000
HELLO = zlib.compress(SAID)


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(SAID)),
    "two archives": ("x-gzip", gzip.compress(SAID[:5000]) + gzip.compress(SAID[5000:])),
    "an archive with padding": ("GZIP", gzip.compress(SAID) + b"\0" * 100),
    "deflate": ("deflate", HELLO),
    "deflate without its frame": ("deflate", _raw_deflate(SAID)),
    "not packed at all": ("identity", SAID),
    "an unknown word": ("utf-8", SAID),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("torn", [False, True])
async def test_a_packed_answer_is_unpacked(name: str, torn: bool) -> None:
    """However it was packed and cut to pieces, what was said is heard."""
    coding, packed = PACKED[name]
    said = reply(packed, f"Content-Encoding: {coding}")
    async with server(bytewise(said) if torn else said) as upstream, client() as http:
        assert (await http.get(upstream.url, {})).body == SAID
        assert upstream.asked[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("body", [b"hello", HELLO[:-1], HELLO[:50] + b"\xff" * 50], ids=["plain", "half", "bent"])
async def test_what_cannot_be_unpacked_is_no_reply(body: bytes) -> None:
    """Damaged and cut archives are an error that isn't tried again."""
    async with server(reply(body, "Content-Encoding: deflate")) as upstream, client() as http:
        with pytest.raises(DecodingError):
            await http.get(upstream.url, {})


async def test_an_empty_answer_is_not_unpacked() -> None:
    """No bytes are no archive, and no error."""
    async with server(reply(b"", "Content-Encoding: gzip")) as upstream, client() as http:
        assert (await http.get(upstream.url, {})).body == b""


async def test_a_bomb_goes_off_in_small_pieces() -> None:
    """A gigabyte in a megabyte is unpacked up to the limit, and a stream gets it in pieces."""
    bomb = gzip.compress(bytes(2**26)) * 16
    async with server(reply(bomb, "Content-Encoding: gzip")) as upstream, client() as http:
        with pytest.raises(ReplyTooLong, match="longer than 1000000 bytes"):
            await http.get(upstream.url, {})
        async with http.stream_json(upstream.url, b"{}", {}) as stream:
            assert len(await stream.next_part()) <= 2**18
