"""What the client sends, and what becomes of an exchange that nobody waits for any more."""

import asyncio
from contextlib import suppress

import pytest

from app.providers.http import HttpClient
from app.providers.http.exceptions import InvalidHeader, NoReply
from tests.providers.http.server import client, hold, reply, server, until


async def test_a_form_goes_out_in_one_piece_and_comes_back_whole() -> None:
    """Request line, headers, length and body are as a server wants them; the same connection serves again."""
    async with server(reply(b"well", "Content-Type: text/plain", "X-Empty:")) as upstream, client() as http:
        for _ in range(2):
            got = await http.post_form(upstream.url, b"a=1+2&b=%C3%A4", {"X-One": "two", "accept": "text/plain"})
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Key", "a\r\nX-Other: b"),
        ("X-Key", "a\0"),
        ("X-Key", "\ud800"),
        ("X Key", "a"),
        ("X-Key:", "a"),
        ("X-Kéy", "a"),
        ("", "a"),
    ],
)
async def test_a_header_that_cannot_be_sent_is_refused(name: str, value: str) -> None:
    """Nothing is sent, and the error names the header but not its value."""
    async with server(reply()) as upstream, client() as http:
        with pytest.raises(InvalidHeader) as raised:
            await http.get(upstream.url, {name: value})
        assert str(raised.value) == f"The header {name!r} can't be sent."
        assert upstream.connections == 0


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
        with pytest.raises(NoReply):
            await left
        with pytest.raises(RuntimeError, match="not been opened"):
            await http.get(upstream.url, {})
