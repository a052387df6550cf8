"""How answers are framed and packed, what breaks them, and that nobody can make us keep more than we asked for."""

import asyncio
import gzip
import socket
import struct
import zlib

import pytest

from app.domain.errors import GatewayError, UnexpectedReply, UpstreamUnavailable
from tests.providers.http.server import Talk, client, reply, server, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SAID = b"How are you? " * 1000
HELLO = zlib.compress(SAID)

# What is sent, the status and body it means, and whether the connection can be used again.
FRAMED = {
    "a length": (reply(b"hello"), 200, b"hello", True),
    "no body": (reply(b""), 200, b"", True),
    "chunks": (CHUNKED + b"2\r\nhe\r\n3 \r\nllo\r\n0\r\n\r\n", 200, b"hello", True),
    "chunks with extensions and trailers": (
        CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0\r\nX-Sum: 1\r\nX-End: 9\r\n\r\n',
        *(200, b"hello", True),
    ),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, b"hello", False),
    "until close, by a coding that is no framing": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        *(200, b"hello", False),
    ),
    "a close that is announced": (reply(b"hello", "Connection: close"), 200, b"hello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
    "HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        *(200, b"hello", True),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\nX-Length: 0\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(b"hello"),
        *(200, b"hello", True),
    ),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello", True),
    "more than was asked for": (reply(b"hello") + reply(b"world"), 200, b"hello", False),
    "garbage behind it": (reply(b"hello") + b"\0\1\2", 200, b"hello", False),
    "another protocol from now on": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\nhi",
        *(101, b"", False),
    ),
    "a redirect": (reply(b"", "Location: /elsewhere", status="302 Found"), 302, b"", True),
}


@pytest.mark.parametrize("name", FRAMED)
@pytest.mark.parametrize("torn", [False, True])
async def test_an_answer_ends_where_it_says(name: str, torn: bool) -> None:
    """In one piece or byte by byte it's the same answer, and only a connection that is clean is used again."""
    said, status, body, again = FRAMED[name]
    async with server(_bytewise(said) if torn else said, reply(b"next")) as upstream, client() as http:
        got = await http.get(upstream.url, {})
        assert (got.status, got.body) == (status, body)
        assert (await http.get(upstream.url, {})).body == b"next"
        assert upstream.connections == (1 if again else 2)


def _bytewise(said: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(len(said)):
            writer.write(said[start : start + 1])
            await asyncio.sleep(0)
        if b"length" not in said.lower() and b"chunked" not in said.lower():
            writer.close()

    return talk


def _endless(begin: bytes, more: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(more)
            await writer.drain()
        raise ConnectionResetError

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "fields": (OK, b"A: b\r\n" * 50),
    "a field": (OK + b"A: ", b"b" * 1000),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"A: b\r\n" * 50),
    "a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nA: ", b"b" * 1000),
    "a chunk's extension": (CHUNKED + b"5;a=", b"b" * 1000),
    "a body": (CHUNKED, b"5\r\nhello\r\n" * 50),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_ends_is_given_up(name: str) -> None:
    """Whatever part of an answer goes on for ever, the connection is dropped after a bounded number of bytes."""
    async with server(_endless(*ENDLESS[name])) as upstream, client() as http:
        with pytest.raises(UnexpectedReply):
            await http.get(upstream.url, {})
        await upstream.left.wait()


BROKEN: dict[str, tuple[bytes, type[GatewayError], str]] = {
    "no status": (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", UnexpectedReply, "not valid HTTP"),
    "too many fields": (OK + b"A: b\r\n" * 300 + b"\r\n", UnexpectedReply, "not valid HTTP"),
    "a head that comes at once": (OK + b"A: " + b"b" * 70_000 + b"\r\n\r\nhello", UnexpectedReply, "not valid HTTP"),
    "a body that is too short": (OK + b"Content-Length: 9\r\n\r\nhello", UpstreamUnavailable, "in the middle"),
    "a chunk that is missing": (CHUNKED + b"5\r\nhello\r\n", UpstreamUnavailable, "in the middle"),
    "a chunk without a size": (CHUNKED + b"5\r\nhello\r\nx\r\n", UnexpectedReply, "not valid HTTP"),
    "half a head": (OK + b"Content-Le", UpstreamUnavailable, "without an answer"),
    "nothing": (b"", UpstreamUnavailable, "without an answer"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_wrong_with_an_answer_is_said(name: str) -> None:
    """What was lost on the way may be tried again; what is no HTTP is another error."""
    said, error, words = BROKEN[name]

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        raise ConnectionAbortedError

    async with server(talk) as upstream, client() as http:
        with pytest.raises(error, match=words):
            await http.get(upstream.url, {})


async def test_a_body_without_a_length_ends_with_its_connection_unless_that_is_torn() -> None:
    """Closed in good order it is whole; after a reset nobody knows what is missing."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\nhello")
        await heard.wait()
        endpoint = writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    heard = asyncio.Event()
    async with server(talk) as upstream, client() as http, http.stream_json(upstream.url, b"{}", {}) as stream:
        assert await stream.next_part() == b"hello"
        heard.set()
        with pytest.raises(UpstreamUnavailable, match="in the middle"):
            await stream.next_part()


async def test_what_has_come_is_read_before_the_trouble() -> None:
    """A stream that breaks off gives all that came before."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await writer.drain()
        raise ConnectionAbortedError

    async with server(talk) as upstream, client() as http, http.stream_json(upstream.url, b"{}", {}) as stream:
        await upstream.left.wait()
        assert await stream.next_part() == b"hello"
        with pytest.raises(UpstreamUnavailable, match="in the middle"):
            await stream.next_part()


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
    async with server(_bytewise(said) if torn else said) as upstream, client() as http:
        assert (await http.get(upstream.url, {})).body == SAID
        assert upstream.asked[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("body", [b"hello", HELLO[:-1], HELLO[:50] + b"\xff" * 50], ids=["plain", "half", "bent"])
async def test_what_cannot_be_unpacked_is_no_reply(body: bytes) -> None:
    """Damaged and cut archives are an error that isn't tried again."""
    async with server(reply(body, "Content-Encoding: deflate")) as upstream, client() as http:
        with pytest.raises(UnexpectedReply, match="unpacked"):
            await http.get(upstream.url, {})


async def test_an_empty_answer_is_not_unpacked() -> None:
    """No bytes are no archive, and no error."""
    async with server(reply(b"", "Content-Encoding: gzip")) as upstream, client() as http:
        assert (await http.get(upstream.url, {})).body == b""


async def test_a_bomb_goes_off_in_small_pieces() -> None:
    """A gigabyte in a megabyte is unpacked up to the limit, and a stream gets it in pieces."""
    bomb = gzip.compress(bytes(2**26)) * 16
    async with server(reply(bomb, "Content-Encoding: gzip")) as upstream, client() as http:
        with pytest.raises(UnexpectedReply, match="longer than 1000000 bytes"):
            await http.get(upstream.url, {})
        async with http.stream_json(upstream.url, b"{}", {}) as stream:
            assert len(await stream.next_part()) <= 2**18


async def test_nobody_reads_so_nothing_is_taken_in() -> None:
    """A stream that isn't read is stopped after some hundred kilobytes, and goes on where it was when it is read."""
    size = 20 * 2**20

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _part in range(size // 2**16):
            writer.write(b"x" * 2**16)
            await writer.drain()

    async with server(talk, reply()) as upstream, client() as http:
        async with http.stream_json(upstream.url, b"{}", {}) as stream:
            (connection,) = http._opened._open
            await until(lambda: not connection._transport.is_reading())
            part = await stream.next_part()
            assert 2**18 < len(part) <= 2**20
            got = len(part)
            while part := await stream.next_part():
                got += len(part)
            assert got == size
        assert (await http.get(upstream.url, {})).body == b"well"
        assert upstream.connections == 1
