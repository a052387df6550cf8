"""How answers are framed, what breaks them, and when a connection is used again."""

import asyncio
import socket
import struct

import pytest

from app.providers.http import HttpError
from app.providers.http.connection import Connection
from app.providers.http.destination import Destination
from app.providers.http.exceptions import IncompleteReply, NoReply, ProtocolError, ReplyTooLong
from tests.providers.http.server import CHUNKED, OK, Talk, bytewise, client, reply, server

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
    "HTTP/1.0 with chunks": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        *(200, b"hello", False),
    ),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204, b"", False),
    "304 with a body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", 304, b"", False),
    "a value on two lines": (OK + b"X-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
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
    async with server(bytewise(said) if torn else said, reply(b"next")) as upstream, client() as http:
        got = await http.get(upstream.url, {})
        assert (got.status, got.body) == (status, body)
        assert (await http.get(upstream.url, {})).body == b"next"
        assert upstream.connections == (1 if again else 2)


def _endless(begin: bytes, more: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(more)
            await writer.drain()
        raise ConnectionResetError

    return talk


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
        with pytest.raises((ProtocolError, ReplyTooLong)):
            await http.get(upstream.url, {})
        await upstream.left.wait()


BROKEN: dict[str, tuple[bytes, type[HttpError]]] = {
    "no status": (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", ProtocolError),
    "too many headers": (OK + b"".join(b"A%d: b\r\n" % number for number in range(300)) + b"\r\n", ProtocolError),
    "too many cookies": (OK + b"Set-Cookie: a=b\r\n" * 300 + b"\r\n", ProtocolError),
    "a head that comes at once": (OK + b"A: " + b"b" * 70_000 + b"\r\n\r\nhello", ProtocolError),
    "a space before the colon of the length": (OK + b"Content-Length : 5\r\n\r\nhello", ProtocolError),
    "a space before the colon of the coding": (
        OK + b"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "a second length with a space": (OK + b"Content-Length: 5\r\nContent-Length : 4\r\n\r\nhello", ProtocolError),
    "a coding, and a length with a space": (
        OK + b"Transfer-Encoding: chunked\r\nContent-Length : 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "a space before any colon": (OK + b"Connection : close\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a tab before the colon": (OK + b"Content-Length\t: 5\r\n\r\nhello", ProtocolError),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello", ProtocolError),
    "the same length twice": (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a list of lengths": (OK + b"Content-Length: 5, 5\r\n\r\nhello", ProtocolError),
    "a length with a sign": (OK + b"Content-Length: +5\r\n\r\nhello", ProtocolError),
    "a negative length": (OK + b"Content-Length: -5\r\n\r\nhello", ProtocolError),
    "a hexadecimal length": (OK + b"Content-Length: 0x5\r\n\r\nhello", ProtocolError),
    "an empty length": (OK + b"Content-Length:\r\n\r\nhello", ProtocolError),
    "a length beyond all numbers": (OK + b"Content-Length: 99999999999999999999\r\n\r\nhello", ProtocolError),
    "a length on two lines": (OK + b"Content-Length: 5\r\n 0\r\n\r\nhello", ProtocolError),
    "a length and chunks": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ProtocolError),
    "chunks that are compressed": (
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "chunks within another coding": (
        OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "a coding that sounds like chunks": (
        OK + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "chunks twice": (
        CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ProtocolError,
    ),
    "two codings": (CHUNKED[:-2] + b"Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ProtocolError),
    "a NUL in a value": (OK + b"X-A: a\0b\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a NUL in a cookie": (OK + b"Set-Cookie: a=\0b\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a bare carriage return": (OK + b"X-A: a\rContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a name that is no token": (OK + b"X(A): b\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
    "a line without a colon": (OK + b"Content-Length 5\r\n\r\nhello", ProtocolError),
    "a chunk's size with a sign": (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", ProtocolError),
    "a chunk's size beyond all numbers": (CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", ProtocolError),
    "a body that is too short": (OK + b"Content-Length: 9\r\n\r\nhello", IncompleteReply),
    "a chunk that is missing": (CHUNKED + b"5\r\nhello\r\n", IncompleteReply),
    "a chunk without a size": (CHUNKED + b"5\r\nhello\r\nx\r\n", ProtocolError),
    "half a head": (OK + b"Content-Le", NoReply),
    "nothing": (b"", NoReply),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_wrong_with_an_answer_is_said(name: str) -> None:
    """A lost connection, before or within the answer, is one kind of error; what is not HTTP is another."""
    said, error = BROKEN[name]

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        raise ConnectionAbortedError

    async with server(talk) as upstream, client() as http:
        with pytest.raises(error):
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
        with pytest.raises(IncompleteReply):
            await stream.next_part()


async def test_cookies_of_the_final_head_count_alone() -> None:
    """Neither an interim answer nor a trailer sets any."""
    said = b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: early=1\r\n\r\n" + OK
    said += b"Set-Cookie: good=1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nSet-Cookie: late=1\r\n\r\n"
    async with server(said, reply()) as upstream, client() as http:
        await http.get(upstream.url, {})
        await http.get(upstream.url, {})
        assert upstream.asked[1].headers["cookie"] == "good=1"


async def test_a_connection_that_was_closed_in_this_very_moment_is_not_used() -> None:
    """Even if the event loop hasn't heard of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with client() as http:
            for _ in range(2):
                asking = asyncio.create_task(http.get(url, {}))
                accepted, _peer = await loop.sock_accept(listener)
                with accepted:
                    await loop.sock_recv(accepted, 1000)
                    await loop.sock_sendall(accepted, reply())
                    assert (await asking).body == b"well"
            # Both were closed without another turn of the loop before the next request.


async def test_what_is_said_unasked_ends_a_connection() -> None:
    """A connection that waits has nothing to say."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply())
        await writer.drain()
        await said.wait()
        writer.write(reply(b"forged"))
        await reader.read(1)

    said = asyncio.Event()
    async with server(talk, reply(b"true")) as upstream, client() as http:
        await http.get(upstream.url, {})
        assert http._opened.idle == 1
        said.set()
        async with asyncio.timeout(5):  # far less than a connection may wait
            await upstream.left.wait()
        assert http._opened.idle == 0
        assert (await http.get(upstream.url, {})).body == b"true"


async def test_a_connection_that_ends_at_its_reuse_is_an_error_that_may_be_tried_again() -> None:
    """The request may have been read: this client never sends it a second time by itself."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with server(reply(), hang_up) as upstream, client() as http:
        await http.get(upstream.url, {})
        with pytest.raises(NoReply):
            await http.get(upstream.url, {})
        assert (len(upstream.asked), upstream.connections) == (2, 1)


async def test_a_connection_whose_request_is_not_all_sent_is_not_used_again() -> None:
    """An answer may come before its request has been read: the next request would wait behind the unread rest."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        accepted.append(writer)
        writer.write(reply(b"first" if len(accepted) == 1 else b"next"))  # and nothing more is read

    accepted: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    try:
        async with client() as http:
            # More than the buffers of both sockets hold.
            assert (await http.post_json(url, b"x" * 20_000_000, {})).body == b"first"
            assert http._opened.idle == 0
            assert (await http.get(url, {})).body == b"next"
            assert len(accepted) == 2
    finally:
        listener.close()
        for writer in accepted:
            writer.close()


async def test_the_server_hears_at_once_of_a_connection_that_is_dropped() -> None:
    """Before the loop's next turn, in which another request may be sent: to the server it never looks like two."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(Destination("127.0.0.1", port, tls=False, proxy=None), lambda _: None), "127.0.0.1", port
        )
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(5)
            connection.send(b"GET / HTTP/1.1\r\n\r\n", 1000)
            connection.abort()
            said = b""
            while part := peer.recv(1000):
                said += part
    assert said == b"GET / HTTP/1.1\r\n\r\n"
