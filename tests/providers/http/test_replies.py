"""Replies that are read while they arrive, and what is read off their headers."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.providers.http import retry_after
from app.providers.http.exceptions import IncompleteReply
from tests.providers.http.server import CHUNKED, client, reply, server, until


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 30 ", 30),
        ("3601", 3600),
        ("9" * 400, 3600),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600),
        ("Wed, 21 Oct 2015 07:28:00 -99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_reason(value: str, seconds: float | None) -> None:
    """Numbers and dates are understood, an hour is the most, and nonsense is no request to wait."""
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    """A date in a minute means a minute."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(60, abs=5)


async def test_what_has_come_is_read_before_the_trouble() -> None:
    """A stream that breaks off gives all that came before."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await writer.drain()
        raise ConnectionAbortedError

    async with server(talk) as upstream, client() as http, http.stream_json(upstream.url, b"{}", {}) as stream:
        await upstream.left.wait()
        assert await stream.next_part() == b"hello"
        with pytest.raises(IncompleteReply):
            await stream.next_part()


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
