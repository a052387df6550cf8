"""Connections: kept, reused, dropped; what happens when they can't be had, and to whom they lead."""

import asyncio
import socket
import ssl
from contextlib import suppress

import pytest

from app.domain.errors import UnexpectedReply, UpstreamUnavailable
from app.providers.http import HttpClient
from app.providers.http.names import Addresses, Names
from tests.ports import free_port
from tests.providers.http.server import client, hold, reply, server, until


async def test_a_form_goes_out_in_one_piece_and_comes_back_whole() -> None:
    """Request line, headers, length and body are as a server wants them; the same connection serves again."""
    async with server(reply(b"well", "Content-Type: text/plain", "X-Empty:")) as upstream, client() as http:
        for _ in range(2):
            got = await http.post_form(upstream.url, {"a": "1 2", "b": "ä"}, {"X-One": "two", "accept": "text/plain"})
        assert (got.status, got.body) == (200, b"well")
        assert got.headers == {"content-type": "text/plain", "x-empty": "", "content-length": "4"}
        (first, second) = upstream.asked
        assert first == second
        assert (first.line, first.body) == ("POST /ask HTTP/1.1", b"a=1+2&b=%C3%A4")
        assert first.headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept": "text/plain",
            "accept-encoding": "gzip, deflate",
            "user-agent": "kimi-ai-2api",
            "content-type": "application/x-www-form-urlencoded",
            "x-one": "two",
            "content-length": "14",
        }
        assert upstream.connections == 1


async def test_headers_of_the_caller_win_but_for_the_framing() -> None:
    """However a header is spelt it goes out once, and nobody else says how long a body is."""
    headers = {"content-type": "application/vnd.acme+json", "Content-Length": "7", "transfer-encoding": "chunked"}
    async with server(reply()) as upstream, client() as http:
        await http.post_json(upstream.url, b"{}", headers)
        (asked,) = upstream.asked
        assert asked.headers["content-type"] == "application/vnd.acme+json"
        assert (asked.headers["content-length"], "transfer-encoding" in asked.headers) == ("2", False)
        with pytest.raises(ValueError, match="line break"):
            await http.get(upstream.url, {"X-Key": "a\r\nX-Other: b"})


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "GET / HTTP/1.1"),
        ("?q=1", "GET /?q=1 HTTP/1.1"),
        ("/a%20b/ä b?c=%C3#part", "GET /a%20b/%C3%A4%20b?c=%C3 HTTP/1.1"),
    ],
)
async def test_a_url_is_asked_for_as_it_is_meant(path: str, line: str) -> None:
    """What can't stand in a request line is quoted; what is quoted stays."""
    async with server(reply()) as upstream, client() as http:
        await http.get(f"http://127.0.0.1:{upstream.port}{path}", {})
        assert upstream.asked[0].line == line


async def test_a_url_may_carry_a_name_and_a_password() -> None:
    """They become an Authorization header."""
    async with server(reply()) as upstream, client() as http:
        await http.get(f"http://ada:p%40ss@127.0.0.1:{upstream.port}/", {})
        assert upstream.asked[0].headers["authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://a b/", "http://h:99999/", "http://[::1/", "x"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    """An upstream may have named it."""
    async with client() as http:
        with pytest.raises(UnexpectedReply, match="no valid URL"):
            await http.get(url, {})


async def test_a_name_is_found() -> None:
    """localhost is looked up, whatever families it has."""
    async with server(reply()) as upstream, client() as http:
        url = upstream.url.replace("127.0.0.1", "localhost")
        assert [(await http.get(url, {})).body for _ in range(2)] == [b"well"] * 2
        assert upstream.asked[0].headers["host"] == f"localhost:{upstream.port}"


async def test_many_ask_for_a_name_and_it_is_looked_up_once() -> None:
    """At the same time and afterwards; a failure is told to all who wait, and not kept; who leaves takes nothing."""
    asked = []
    found: Addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    async def look_up(host: str, _: int) -> Addresses:
        asked.append(host)
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise socket.gaierror
        return found

    names = Names(look_up)
    failed = await asyncio.gather(*(names.addresses("h", 80) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in failed] == [socket.gaierror] * 3
    leaving = asyncio.create_task(names.addresses("h", 80))
    waiting = [asyncio.create_task(names.addresses("h", 80)) for _ in range(3)]
    await until(lambda: len(asked) == 2)
    leaving.cancel()
    assert await asyncio.gather(*waiting) == [found] * 3
    assert await names.addresses("h", 80) == found
    assert asked == ["h", "h"]


async def test_what_keeps_a_connection_from_being_made_is_said(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, no such name, a certificate that nobody has signed, no TLS at all."""
    plain = await asyncio.start_server(_greet, "127.0.0.1", 0)
    async with server(reply(), tls=tls) as secure, client() as http, plain:
        for url, words in {
            f"http://127.0.0.1:{free_port()}/": "No connection to the upstream can be made",
            "http://no-such-host.invalid/": "host name can't be resolved",
            secure.url: "certificate isn't valid",
            f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/": "No secure connection",
        }.items():
            with pytest.raises(UpstreamUnavailable, match=words):
                await http.get(url, {})
        monkeypatch.setattr("app.providers.http.connecting._CONNECT_SECONDS", 0.01)
        monkeypatch.setattr(Names, "addresses", _never)
        with pytest.raises(UpstreamUnavailable, match=r"within 0\.01 seconds"):
            await http.get("http://slow.invalid/", {})


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 Welcome, and no TLS.\r\n")
    writer.close()


async def _never(*_: object) -> Addresses:
    await asyncio.Event().wait()
    return []


@pytest.mark.usefixtures("trusted")
async def test_a_secure_connection_is_used_again(tls: ssl.SSLContext) -> None:
    """With a certificate that the machine trusts; large bodies go both ways."""
    async with server(reply(b"x" * 900_000), tls=tls) as upstream, client() as http:
        for _ in range(3):
            got = await http.post_json(upstream.url, b"y" * 3_000_000, {})
            assert len(got.body) == 900_000
        assert [len(asked.body) for asked in upstream.asked] == [3_000_000] * 3
        assert upstream.connections == 1


async def test_the_last_used_connection_is_used_first_and_old_ones_not_at_all() -> None:
    """As many as needed at once, one after the other the same, none that has waited too long."""
    async with server(reply()) as upstream, client() as http:
        await asyncio.gather(*(http.get(upstream.url, {}) for _ in range(5)))
        pool = http._opened
        assert (upstream.connections, pool.idle, pool.in_use) == (5, 5, 0)
        (waiting,) = pool._idle.values()
        for connection in waiting[:3]:
            connection.idle_since -= 15
        pool._drop_old()
        assert pool.idle == 2
        last = waiting[-1]
        await http.get(upstream.url, {})
        assert (upstream.connections, waiting[-1]) == (5, last)
        async with http.stream_json(upstream.url, b"{}", {}):
            assert last not in waiting
        for connection in waiting:
            connection.idle_since -= 15
        await http.get(upstream.url, {})
        assert (upstream.connections, pool.idle) == (6, 1)


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
        with pytest.raises(UpstreamUnavailable, match="without an answer"):
            await http.get(upstream.url, {})
        assert (len(upstream.asked), upstream.connections) == (2, 1)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_task_that_is_cancelled_takes_its_exchange_along(begun: bool) -> None:
    """The upstream sees its client go, before an answer and in the middle of one."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await hold(reader, writer)

    async with server(begin if begun else hold) as upstream, client() as http:
        asking = asyncio.create_task(http.get(upstream.url, {}))
        await until(lambda: bool(upstream.asked))
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await upstream.left.wait()
        await until(lambda: not http._opened._open)
        assert (http._opened.idle, http._opened.in_use) == (0, 0)


@pytest.mark.parametrize("read", [False, True])
async def test_leaving_a_stream_early_ends_its_connection(read: bool) -> None:
    """Unless the answer has come to its end."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer + (b"0\r\n\r\n" if read else b""))
        await (writer.drain() if read else hold(reader, writer))

    async with server(talk, reply(b"next")) as upstream, client() as http:
        async with http.stream_json(upstream.url, b"{}", {}) as stream:
            assert await stream.next_part() == b"hello"
            if read:
                await stream.finish()
        if not read:
            await upstream.left.wait()
        assert (await http.get(upstream.url, {})).body == b"next"
        assert upstream.connections == (1 if read else 2)


async def test_a_client_is_opened_and_closed() -> None:
    """Closed, it has no connection left, and neither before nor afterwards can it be used."""
    http = HttpClient(max_reply_bytes=10)
    with pytest.raises(RuntimeError, match="not been opened"):
        await http.get("http://127.0.0.1/", {})
    async with server(reply(), hold) as upstream:
        await http.open()
        pool = http._opened
        await asyncio.gather(http.get(upstream.url, {}))
        left = asyncio.create_task(http.get(upstream.url, {}))
        await until(lambda: len(upstream.asked) == 2)
        await http.aclose()
        assert (pool.idle, pool.in_use) == (0, 0)
        with pytest.raises(UpstreamUnavailable):
            await left
        with pytest.raises(RuntimeError, match="not been opened"):
            await http.get(upstream.url, {})
