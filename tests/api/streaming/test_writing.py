"""Clients that stop reading in the middle of a stream, without leaving."""

import asyncio
import io
from collections.abc import AsyncGenerator
from itertools import repeat

import pytest
from starlette.types import Message

from app.api.streaming.writing import ResponseWriter
from app.assembly.app import create_app
from app.domain.chat import Delta
from app.domain.errors import ClientClosedRequest
from app.observe import logging as logs
from app.providers.base import CompletionRequest
from app.settings import load_settings
from tests.live import ALICE_KEY, LiveGateway, serving
from tests.loops import in_leaping_time
from tests.scripted import ScriptedProvider

PART = Delta("0123456789" * 1000)


class Endless(ScriptedProvider):
    """Streams for as long as it is let."""

    def __init__(self) -> None:
        super().__init__("endless", repeat(PART))
        self.ended = asyncio.Event()

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        try:
            async for delta in super().stream_completion(request):
                yield delta
        finally:
            self.ended.set()


def test_a_stream_that_nobody_reads_is_ended_and_holds_up_nobody() -> None:
    """The provider's stream is closed, the session is free again, and a late reader sees a cut-off answer."""
    provider = Endless()
    values = {"_env_file": None, "api_master_key": ALICE_KEY, "chat_page_url": "http://127.0.0.1:9/"}
    app = create_app(load_settings(**values, stream_write_timeout=0.2), [provider])
    logs.configure("DEBUG", "json", io.StringIO())
    with serving(app) as gateway, gateway.send(stream=True, user="ada", model="endless-model") as connection:
        gateway.run(provider.ended.wait)
        provider.answer = [PART]
        again = gateway.send(user="ada", model="endless-model")
        assert b" 200 " in again.recv(100)
        again.close()
        heard = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"[DONE]" not in heard
        assert not heard.endswith(b"0\r\n\r\n")
        _no_stream_is_open(gateway)


def _no_stream_is_open(gateway: LiveGateway) -> None:
    with gateway.client() as http:
        assert "kimi_streams_active 0.0" in http.get("/metrics").text


async def _never(_: Message) -> None:
    await asyncio.Event().wait()


async def test_a_write_that_never_ends_is_given_up() -> None:
    """It becomes the error of a client that has left, and the task may go on."""
    with pytest.raises(ClientClosedRequest):
        await ResponseWriter(_never, 0.01).write(b"piece")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_slow_writes_and_silence_are_no_stall() -> None:
    """Neither many writes that take their time nor a long wait for something to write end a stream."""
    sent: list[bytes] = []

    async def slowly(message: Message) -> None:
        await asyncio.sleep(9)
        await asyncio.sleep(0)
        sent.append(message["body"])

    async def write() -> None:
        writer = ResponseWriter(slowly, 10)
        for index in range(50):
            await writer.write(b"%d" % index)
        await asyncio.sleep(1000)
        await writer.write(b"last", more=False)

    in_leaping_time(write())
    assert sent == [*(b"%d" % index for index in range(50)), b"last"]


async def test_another_cancellation_stays_one_and_reaches_what_waits() -> None:
    """A server that ends is not taken for a client that stopped reading; its own `send` can clean up."""
    cleaned = []

    async def never(message: Message) -> None:
        try:
            await _never(message)
        except asyncio.CancelledError:
            cleaned.append(True)
            raise

    writer = ResponseWriter(never, 60)
    assert not writer.begin(b"piece")
    task = asyncio.create_task(writer.finish())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert cleaned == [True]


async def test_what_a_write_raises_is_raised_whenever_it_is_waited_for() -> None:
    """An error at once and one after a wait both reach the caller; what is begun is done if the client reads."""

    async def send(message: Message) -> None:
        if message["body"] == b"later":
            await asyncio.sleep(0)
        if message["body"]:
            raise OSError(message["body"])

    writer = ResponseWriter(send, 60)
    for body in (b"at once", b"later"):
        with pytest.raises(OSError, match=body.decode()):
            await writer.write(body)
    assert writer.begin(b"")
    await writer.finish()
