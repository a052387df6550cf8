"""A response that is opened late and kept open."""

import asyncio

import pytest
from starlette.types import Message

from app.api.dialects import EventEncoder
from app.api.openai.stream import ChunkEncoder
from app.api.streaming.late_response import LateResponse
from app.api.streaming.writing import ResponseWriter
from tests.api.answers import OPENING
from tests.loops import in_leaping_time

_PING = ChunkEncoder.ping
_START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class _Client:
    """Notes what is sent and when, and reads as long as `reads` is set."""

    def __init__(self) -> None:
        self.got: list[tuple[float, bytes]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.pings = 0
        self.encoder = ChunkEncoder(OPENING, include_usage=False)
        self._began = asyncio.get_running_loop().time()
        writer = ResponseWriter(self._send, timeout=60)
        self.response = LateResponse(writer, self._begin, grace=10, heartbeat=15, on_ping=self._ping)

    def _begin(self) -> tuple[Message, EventEncoder]:
        return _START, self.encoder

    def _ping(self) -> None:
        self.pings += 1

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        self.got.append((asyncio.get_running_loop().time() - self._began, message.get("body", b"start")))


def test_it_is_opened_when_the_grace_time_is_over() -> None:
    """Not before it is ready; then at once with a ping, and the opening comes once only, though words come later."""

    async def work() -> None:
        client = _Client()
        with client.response as response:
            await asyncio.sleep(11)
            assert not client.got
            response.ready()
            await asyncio.sleep(1)
            await response.open()
            await response.write(b"word")
        times, bodies = zip(*client.got, strict=True)
        assert times == pytest.approx((11, 11, 12))
        assert bodies == (b"start", client.encoder.opening() + _PING, b"word")

    in_leaping_time(work())


def test_each_silence_is_broken_and_no_word_is_followed_by_a_ping() -> None:
    """A ping comes whenever nothing has been written for so long, and none after the block."""

    async def work() -> None:
        client = _Client()
        with client.response as response:
            response.ready()
            await asyncio.sleep(1)
            await response.open()
            await response.write(b"one")
            await asyncio.sleep(14)
            await response.write(b"two")
            await asyncio.sleep(31)
            await response.write(b"three")
        await asyncio.sleep(100)
        times, bodies = zip(*client.got, strict=True)
        assert times == pytest.approx((1, 1, 15, 30, 45, 46))
        assert bodies == (b"start", client.encoder.opening() + b"one", b"two", _PING, _PING, b"three")
        assert client.pings == 2

    in_leaping_time(work())


def test_no_ping_is_heaped_on_a_client_that_does_not_read() -> None:
    """What was begun is finished before the next word, in order; meanwhile nothing else is begun."""

    async def work() -> None:
        client = _Client()
        with client.response as response:
            await response.open()
            await response.write(b"one")
            client.reads.clear()
            await asyncio.sleep(50)
            writing = asyncio.create_task(response.write(b"two"))
            await asyncio.sleep(20)
            client.reads.set()
            await writing
        assert [body for _, body in client.got] == [b"start", client.encoder.opening() + b"one", _PING, b"two"]
        assert client.pings == 1

    in_leaping_time(work())
