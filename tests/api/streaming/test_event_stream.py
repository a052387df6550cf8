"""Streams over a real socket: order, grace time, heartbeats, failures, and typing."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from starlette.types import Message

from app.api.anthropic.stream import MessageEncoder
from app.api.dialects import EventEncoder
from app.api.error_responses import OPENAI_ERRORS
from app.api.openai.stream import ChunkEncoder
from app.api.request import RequestContext
from app.api.streaming.event_stream import EventStream, StreamPolicy
from app.api.streaming.pacing import Pacer
from app.chat.events import Ending, Event, Opening
from app.domain.chat import Completion, Delta, NativeEvent, ToolCallDelta, Usage
from app.domain.errors import UpstreamUnavailable
from app.observe.metrics import Metrics
from simulator.live import LiveSimulator
from tests.api.answers import OPENING
from tests.conftest import StartGateway
from tests.live import LiveGateway

FAMILY = "👨‍👩‍👧‍👦 naïve e\u0301tude 🇨🇳 你好，世界 "


def body(**fields: object) -> dict[str, object]:
    return {"stream": True, "messages": [{"role": "user", "content": "Hi there"}], **fields}


def events(response: httpx.Response) -> Iterator[Any]:
    """The data of each event; comments are left out, and [DONE] is the text itself."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def read(client: httpx.Client, request: dict[str, object]) -> list[Any]:
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        assert response.status_code == 200
        return list(events(response))


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def test_chunks_come_in_the_order_that_clients_rely_on(site: LiveSimulator, client: httpx.Client) -> None:
    """Role, text with finish_reason null, one finish_reason, [DONE]; one id and one created for all."""
    site.site.update(reply="The answer.")
    *chunks, done = read(client, body())
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]} == {None}
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert text_of(chunks) == "The answer."
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_last_if_it_is_wanted(site: LiveSimulator, client: httpx.Client) -> None:
    """With include_usage every chunk has a null usage, and a last one without choices has the numbers."""
    site.site.update(reply="12345678")
    *chunks, last, done = read(client, body(stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_the_response_is_one_that_no_proxy_holds_back(client: httpx.Client) -> None:
    """The headers name an event stream and forbid caching and buffering."""
    with client.stream("POST", "/v1/chat/completions", json=body()) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        assert "content-length" not in response.headers


@pytest.mark.parametrize("delay", [0, 0.001])
def test_no_piece_splits_what_a_reader_sees_as_one_character(
    site: LiveSimulator, start_gateway: StartGateway, delay: float
) -> None:
    """Emoji families, flags and combining accents arrive whole, whatever the pace."""
    site.site.update(reply=FAMILY * 20)
    with start_gateway(typing_piece_size=1, typing_delay_seconds=delay) as gateway, gateway.client() as http:
        *chunks, _ = read(http, body())
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == FAMILY * 20
    assert {"👨‍👩‍👧‍👦", "e\u0301", "🇨🇳"} <= set(pieces)


def test_a_long_answer_is_typed_in_larger_pieces_within_the_ceiling(
    site: LiveSimulator, start_gateway: StartGateway
) -> None:
    """The pauses of an answer never add up to more than TYPING_MAX_SECONDS: a long one gets fewer, larger pieces."""
    site.site.update(reply="word " * 2000)
    settings = {"typing_piece_size": 1, "typing_delay_seconds": 0.01, "typing_max_seconds": 0.2}
    with start_gateway(**settings) as gateway, gateway.client() as http:
        *chunks, _ = read(http, body())
    assert text_of(chunks) == "word " * 2000
    pauses = sum("content" in chunk["choices"][0]["delta"] for chunk in chunks[1:]) - 1
    assert pauses * 0.01 <= 0.2


def test_heartbeats_flow_while_the_site_is_silent(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """After the grace time the stream opens and sends comments until the answer comes."""
    site.site.update(failure="hang")
    with (
        start_gateway(stream_grace_seconds=0.01, heartbeat_seconds=0.01) as gateway,
        gateway.client() as http,
        http.stream("POST", "/v1/chat/completions", json=body()) as response,
    ):
        lines = response.iter_lines()
        beats = [line for line in (next(lines) for _ in range(12)) if line.startswith(":")]
    assert response.status_code == 200
    assert len(beats) >= 3


def test_a_failure_after_the_stream_has_opened_is_one_error_event(
    site: LiveSimulator, start_gateway: StartGateway
) -> None:
    """The error comes as an event in the envelope's form, and no [DONE] makes the answer look complete."""
    site.site.update(failure="hang")
    settings = {"stream_grace_seconds": 0.01, "request_timeout": 0.5, "max_retries": 0}
    with start_gateway(**settings) as gateway, gateway.client() as http:
        opening, failure = read(http, body())
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert failure["error"]["code"] == "upstream_timeout"
    assert failure["error"].keys() == {"message", "type", "param", "code"}


def test_a_failure_within_the_grace_time_keeps_its_status(site: LiveSimulator, client: httpx.Client) -> None:
    """As long as nothing was sent, a streamed request fails with the same HTTP status as any other."""
    site.site.update(failure="rate_limited")
    response = client.post("/v1/chat/completions", json=body())
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/json"
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"stop": "three"}, "one two ", "stop"),
        ({"stop": ["nine", "two"]}, "one ", "stop"),
        ({"max_tokens": 2}, "one two ", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 50}, "one ", "length"),
        ({"max_tokens": 100}, "one two three four", "stop"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_stop_and_max_tokens_end_the_answer(
    site: LiveSimulator, client: httpx.Client, fields: dict[str, object], text: str, reason: str, stream: bool
) -> None:
    """The gateway ends the answer where the client asked for it, and says why; usage counts what was sent."""
    site.site.update(reply="one two three four")
    if stream:
        *chunks, _ = read(client, body(**fields))
        assert (text_of(chunks), chunks[-1]["choices"][0]["finish_reason"]) == (text, reason)
        return
    answer = client.post("/v1/chat/completions", json=body(**fields) | {"stream": False}).json()
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)
    assert answer["usage"]["completion_tokens"] == -(-len(text) // 4)


def test_a_slow_reader_gets_everything(site: LiveSimulator, gateway: LiveGateway) -> None:
    """A client that reads byte by byte still gets the whole of a long answer."""
    reply = "0123456789" * 5000
    site.site.update(reply=reply)
    with gateway.client() as http, http.stream("POST", "/v1/chat/completions", json=body()) as response:
        raw = b"".join(response.iter_raw(chunk_size=7)).decode()
    chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    assert text_of(chunks) == reply


async def _silent_end() -> AsyncGenerator[Event, None]:
    yield OPENING
    yield Delta("Half of ")


async def _cancelled_inside() -> AsyncGenerator[Event, None]:
    yield OPENING
    yield Delta("Half of ")
    raise asyncio.CancelledError


@pytest.mark.parametrize("events", [_silent_end, _cancelled_inside])
async def test_a_call_that_ends_without_an_ending_is_a_failure(
    events: Callable[[], AsyncGenerator[Event, None]],
) -> None:
    """Whatever goes wrong inside, no client waits for ever: it gets an error event, and no `[DONE]`."""
    sent = await _sent(events())
    body = b"".join(message.get("body", b"") for message in sent)
    assert b"Half of " in body
    assert b'"code":"internal_error"' in body
    assert b"[DONE]" not in body
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    assert b'"code":"internal_error"' in sent[-1]["body"]


async def test_what_comes_after_a_whole_text_waits_for_it_but_the_call_does_not() -> None:
    """The call is at its end while its text is typed out; calls and failures are told after the text, in order."""
    pacer, ended = Pacer(0.001), asyncio.Event()

    async def events() -> AsyncGenerator[Event, None]:
        yield OPENING
        yield Delta("All of it. " * 20, whole=True)
        assert not ended.is_set()
        yield Delta(tool_call=ToolCallDelta(0, "call_1", "look", "{}"))
        ended.set()
        raise UpstreamUnavailable("Gone.")

    def encoder(opening: Opening) -> ChunkEncoder:
        return _Noting(opening, ended)

    body = b"".join(message.get("body", b"") for message in await _sent(events(), encoder, StreamPolicy(pacer=pacer)))
    last, call, failure = body.rindex(b'"content":'), body.index(b'"call_1"'), body.index(b'"error"')
    assert last < call < failure
    assert b"[DONE]" not in body


async def test_a_kept_answer_in_the_form_of_its_request_is_typed_out() -> None:
    """Event by event, or several at a time where the ceiling asks for it; as they came, and in their order."""
    kept = tuple([NativeEvent("content_block_delta", b'{"index":%d}' % place) for place in range(35)])
    ending = Ending(Completion("Hi."), Usage(1, 1))

    async def events() -> AsyncGenerator[Event, None]:
        yield replace(OPENING, native=True)
        yield Delta(native=kept, whole=True)
        yield ending

    encoder = partial(MessageEncoder, show_reasoning=False)
    for ceiling, writes in ((0.009, 9), (1.0, 35), (0.0, 1)):
        sent = await _sent(events(), encoder, StreamPolicy(pacer=Pacer(0.001), typing_ceiling=ceiling))
        bodies = [body for message in sent if (body := message.get("body"))]
        assert len(bodies) == writes + 1  # the ending
        assert [int(place) for place in re.findall(rb'"index":(\d+)', b"".join(bodies))] == [*range(35)]


class _Noting(ChunkEncoder):
    """All pieces but the first are written when the call is at its end."""

    def __init__(self, opening: Opening, ended: asyncio.Event) -> None:
        super().__init__(opening, include_usage=False)
        self._ended = ended
        self._pieces = 0

    def text(self, text: str) -> bytes:
        self._pieces += 1
        assert self._pieces == 1 or self._ended.is_set()
        return super().text(text)


_plain_encoder = partial(ChunkEncoder, include_usage=False)


async def _sent(
    events: AsyncGenerator[Event, None],
    encoder: Callable[[Opening], EventEncoder] = _plain_encoder,
    policy: StreamPolicy | None = None,
) -> list[Message]:
    """What a stream sends to a client that reads all of it."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    response = EventStream(
        events, encoder=encoder, headers_of=lambda _: [], policy=policy or StreamPolicy(), metrics=Metrics(dict)
    )
    async with asyncio.timeout(10):
        await response.send(RequestContext({}, "request-1", OPENAI_ERRORS), receive, send)
    return sent
