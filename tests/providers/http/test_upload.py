"""Bodies that are sent piece by piece."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from app.providers.http import Upload
from app.providers.http.exceptions import NoReply
from tests.providers.http.server import Talk, client, hold, reply, server, until

PIECE = bytes(64 * 1024)


def upload(*pieces: bytes, length: int | None = None) -> Upload:
    """These pieces, of the length that they have unless it is told otherwise."""

    async def all_pieces() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    return Upload("text/plain", sum(map(len, pieces)) if length is None else length, all_pieces)


class Endless:
    """Pieces without an end, and how many of them were wanted."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = asyncio.Event()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Make them."""
        try:
            while True:
                self.given += 1
                yield PIECE
        finally:
            self.closed.set()

    @property
    def upload(self) -> Upload:
        """As a body."""
        return Upload("text/plain", 10**12, self.pieces)


def after_head(answer: bytes) -> Talk:
    """Answer once the head has come, and read nothing of the body."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        await reader.read(-1)

    return talk


async def test_pieces_arrive_as_one_body() -> None:
    """With its type and its length; other requests may follow on the connection."""
    async with server(reply()) as upstream, client() as http:
        async with http.stream_upload(upstream.url, upload(b"one, ", b"", b"two"), {"X-One": "two"}) as stream:
            assert (await stream.whole()).body == b"well"
        await http.post_json(upstream.url, b"{}", {})
        assert upstream.connections == 1
        asked = upstream.asked[0]
        assert (asked.line, asked.body) == ("POST /ask HTTP/1.1", b"one, two")
        assert (asked.headers["content-type"], asked.headers["content-length"]) == ("text/plain", "8")


async def test_an_upload_has_a_connection_of_its_own() -> None:
    """One that waits might be closed just now, and the body could not be sent again."""
    async with server(reply()) as upstream, client() as http:
        await http.post_json(upstream.url, b"{}", {})
        async with http.stream_upload(upstream.url, upload(b"x"), {}) as stream:
            await stream.whole()
        assert upstream.connections == 2


async def test_no_more_is_taken_than_the_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a server doesn't read, no piece is made that would have to wait in memory."""
    monkeypatch.setattr("tests.providers.http.server.read_request", _read_head)
    body, over = Endless(), asyncio.Event()

    async def hold_unread(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    async with server(hold_unread) as upstream, client() as http:

        async def send() -> None:
            async with http.stream_upload(upstream.url, body.upload, {}):
                pass

        sending = asyncio.create_task(send())
        assert http._pool is not None
        opened = http._pool._open
        await until(lambda: any(connection._is_full for connection in opened))
        # What the kernel holds in between is bounded, too.
        assert body.given < 500
        sending.cancel()
        await asyncio.wait([sending])
        assert body.closed.is_set()
        assert http._pool.in_use == 0 or all(connection._transport.is_closing() for connection in opened)
        over.set()


@pytest.mark.parametrize("status", ["413 Too Large", "200 OK"])
async def test_a_server_may_answer_before_it_has_all(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """Then the rest isn't sent, the answer counts, and the connection isn't used again."""
    monkeypatch.setattr("tests.providers.http.server.read_request", _read_head)
    body = Endless()
    async with server(after_head(reply(b"enough", status=status))) as upstream, client() as http:
        async with http.stream_upload(upstream.url, body.upload, {}) as stream:
            assert ((await stream.whole()).body, stream.status) == (b"enough", int(status[:3]))
        assert body.closed.is_set()
        await asyncio.wait_for(upstream.left.wait(), 20)


async def test_a_server_that_hangs_up_ends_the_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it waits for the server to take more."""
    monkeypatch.setattr("tests.providers.http.server.read_request", _read_head)
    body = Endless()
    async with server(b"") as upstream, client() as http:
        upstream.answers = [_hang_up(lambda: body.given > 20)]
        with pytest.raises(NoReply):
            async with http.stream_upload(upstream.url, body.upload, {}):
                pass
    assert body.closed.is_set()


async def test_a_body_of_another_length_is_a_fault() -> None:
    """Its end would be taken for the beginning of the next request; the connection is dropped."""
    async with server(hold) as upstream, client() as http:
        with pytest.raises(ValueError, match="3 bytes, not 5"):
            async with http.stream_upload(upstream.url, upload(b"abc", length=5), {}):
                pass
        await asyncio.wait_for(upstream.left.wait(), 20)


async def _read_head(reader: asyncio.StreamReader) -> object:
    await reader.readuntil(b"\r\n\r\n")
    return object()


def _hang_up(condition: Callable[[], bool]) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(condition)
        writer.transport.abort()

    return talk
