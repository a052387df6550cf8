"""A message's events, as an SDK reads them."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from app.api.anthropic.stream import MessageEncoder
from app.api.anthropic.write import usage_object
from app.chat.events import Ending
from app.domain.chat import FinishReason, NativeEvent, ToolCallDelta, Usage
from app.domain.errors import UpstreamTimeout
from tests.api.answers import OPENING, ending
from tests.domain.strategies import UNTIMED

_EVENT = TypeAdapter[Any](RawMessageStreamEvent)
USAGE = Usage(30, 12, cached_tokens=10, reasoning_tokens=4)


def encoder(*, show_reasoning: bool = True) -> MessageEncoder:
    """The encoder of a message."""
    return MessageEncoder(OPENING, show_reasoning=show_reasoning, request_id="req_1")


def events(stream: bytes) -> list[Any]:
    """The events of a stream; each is named twice, and all but pings and errors are what the SDK knows."""
    found = []
    *blocks, rest = stream.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        name, data = block.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        if document["type"] not in ("ping", "error"):
            _EVENT.validate_python(document, strict=True)
        found.append(document)
    return found


def kinds(stream: bytes) -> list[str]:
    """The events' names, blocks and deltas with their kind."""
    names = []
    for event in events(stream):
        inner = event.get("content_block") or event.get("delta") or {}
        names.append(f"{event['type']} {inner.get('type', '')}".strip())
    return names


def whole(written: MessageEncoder, parts: Iterable[bytes], end: Ending | None = None) -> bytes:
    """A whole stream."""
    return written.opening() + b"".join(parts) + written.ending(end or ending(usage=USAGE))


def test_a_text() -> None:
    """A text is one block, opened by its first piece."""
    written = encoder()
    stream = whole(written, [written.text("Hel"), written.text(""), written.text("lo")])
    start, opened, first, second, closed, delta, stop = events(stream)
    assert start["message"].pop("id").startswith("msg_")
    assert start["message"] | {"usage": None} == {
        "type": "message",
        "role": "assistant",
        "model": "kimi",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": None,
    }
    assert start["message"]["usage"]["input_tokens"] == OPENING.prompt.tokens == 3
    assert opened == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert [piece["delta"] for piece in (first, second)] == [
        {"type": "text_delta", "text": "Hel"},
        {"type": "text_delta", "text": "lo"},
    ]
    assert closed == {"type": "content_block_stop", "index": 0}
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert stop == {"type": "message_stop"}


def test_thoughts_a_text_and_two_tools() -> None:
    """Each kind, and each call, is a block with an index of its own; a block is closed before the next is opened."""
    written = encoder()
    stream = whole(
        written,
        [
            written.reasoning("Hm"),
            written.reasoning("m."),
            written.text("Let me see."),
            written.tool_call(ToolCallDelta(0, "call_1", "weather")),
            written.tool_call(ToolCallDelta(0, arguments='{"city":')),
            written.tool_call(ToolCallDelta(0, arguments='"Rome"}')),
            written.tool_call(ToolCallDelta(1, "call_2", "clock", "{}")),
        ],
        ending("tool_calls"),
    )
    assert kinds(stream) == [
        "message_start",
        "content_block_start thinking",
        *["content_block_delta thinking_delta"] * 2,
        "content_block_delta signature_delta",
        "content_block_stop",
        "content_block_start text",
        "content_block_delta text_delta",
        "content_block_stop",
        "content_block_start tool_use",
        *["content_block_delta input_json_delta"] * 2,
        "content_block_stop",
        "content_block_start tool_use",
        "content_block_delta input_json_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    found = events(stream)
    assert [event["index"] for event in found if "index" in event] == [0] * 5 + [1] * 3 + [2] * 4 + [3] * 3
    tools = [event["content_block"] for event in found if event.get("content_block", {}).get("type") == "tool_use"]
    assert tools == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "clock", "input": {}},
    ]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_thoughts_that_are_not_shown_keep_the_stream_alive() -> None:
    """Instead of a thought a ping is sent."""
    written = encoder(show_reasoning=False)
    stream = whole(written, [written.reasoning("Hm."), written.text("Yes.")])
    assert kinds(stream)[:3] == ["message_start", "ping", "content_block_start text"]
    assert kinds(MessageEncoder.ping) == ["ping"]


@pytest.mark.parametrize(
    ("reason", "stop", "told"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("tool_calls", "END", ("tool_use", None)),
    ],
)
def test_why_it_ended(reason: FinishReason, stop: str | None, told: tuple[str, str | None]) -> None:
    """A stop sequence is told where it is the reason."""
    *_, delta, _ = events(whole(encoder(), [], ending(reason, stop=stop)))
    assert (delta["delta"]["stop_reason"], delta["delta"]["stop_sequence"]) == told


def test_the_usage_is_told_in_the_end() -> None:
    """What was counted takes the place of what was estimated."""
    assert events(whole(encoder(), []))[-2]["usage"] == usage_object(USAGE)


def test_a_failure_ends_the_stream_without_a_stop() -> None:
    """A failure is one event with the error and the request's id."""
    written = encoder()
    stream = written.opening() + written.text("Half of") + written.failure(UpstreamTimeout("Too late."))
    assert kinds(stream)[-1] == "error"
    assert events(stream)[-1] == {
        "type": "error",
        "error": {"type": "timeout_error", "message": "Too late.", "details": {"error_code": "upstream_timeout"}},
        "request_id": "req_1",
    }


@UNTIMED
@given(pieces=st.lists(st.text(), min_size=1))
def test_any_text_comes_through(pieces: list[str]) -> None:
    """Line ends of every kind, quotes and letters of any script arrive as they were, each event on two lines."""
    written = encoder()
    stream = b"".join(written.text(piece) for piece in pieces)
    assert len(stream.decode().splitlines()) == 3 * len(events(stream))
    deltas = [event["delta"]["text"] for event in events(stream) if "delta" in event]
    assert "".join(deltas) == "".join(pieces)


def test_a_refusal_is_told_by_the_stop_reason() -> None:
    """Its words are a text block, and `stop_reason` says so. A provider's extras are on the call's block."""
    writer = encoder()
    signed = ToolCallDelta(0, "call_1", "now", "{}", {"extra_content": {"signature": "c2ln"}})
    stream = writer.opening() + writer.refusal("I can't.") + writer.tool_call(signed)
    found = events(stream + writer.ending(ending(refusal="I can't.")))
    blocks = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["text", "tool_use"]
    assert blocks[1]["extra_content"] == {"signature": "c2ln"}
    assert found[-2]["delta"]["stop_reason"] == "refusal"


def test_a_thought_at_the_end_is_signed_too() -> None:
    """Whatever comes after it, also nothing, a thinking block ends with its signature; other blocks have none."""
    written = encoder()
    stream = whole(written, [written.text("Hi."), written.reasoning("Hm.")], ending("stop"))
    assert kinds(stream)[-5:] == [
        "content_block_delta thinking_delta",
        "content_block_delta signature_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert kinds(stream).count("content_block_delta signature_delta") == 1


def native(*documents: dict[str, Any]) -> list[NativeEvent]:
    """An upstream's own events."""
    return [NativeEvent(document["type"], json.dumps(document).encode()) for document in documents]


_USAGE = {"input_tokens": 1, "output_tokens": 2}
_BEGUN = {
    "type": "message_start",
    "message": {
        "id": "msg_own",
        "type": "message",
        "role": "assistant",
        "model": "own-name",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _USAGE,
    },
}
_BLOCK = (
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
)
_ENDED = {
    "type": "message_delta",
    "delta": {"stop_reason": "pause_turn", "stop_sequence": None},
    "usage": {"output_tokens": 2},
}


def test_native_events_stay_but_for_the_model_s_name() -> None:
    """They begin with the upstream's own beginning and end with its own end."""
    written = MessageEncoder(replace(OPENING, native=True), show_reasoning=False)
    stream = written.opening() + written.native(native(_BEGUN, *_BLOCK)) + written.native(native(_ENDED))
    told = events(stream + written.ending(ending(usage=USAGE)))
    assert told[0]["message"] == {**_BEGUN["message"], "model": "kimi"}  # type: ignore[dict-item]
    assert told[1:] == [*_BLOCK, _ENDED, {"type": "message_stop"}]


def test_a_message_begins_once_whoever_answers_in_the_end() -> None:
    """An upstream that was silent for so long that its beginning was told, and then one that answers natively."""
    written = MessageEncoder(OPENING, show_reasoning=False)
    stream = written.opening() + written.native(native(_BEGUN, *_BLOCK))
    assert stream.count(b"event: message_start") == 1


def test_a_notice_below_native_events_is_a_block_of_its_own() -> None:
    """What the gateway adds stands between the last block and the end."""
    written = MessageEncoder(replace(OPENING, native=True), show_reasoning=False)
    stream = written.opening() + written.native(native(_BEGUN, *_BLOCK, _ENDED)) + written.text("> Note")
    told = events(stream + written.ending(ending(usage=USAGE)))
    assert [event.get("index") for event in told] == [None, 0, 0, 0, 1, 1, 1, None, None]
    assert told[-2:] == [_ENDED, {"type": "message_stop"}]


def test_an_answer_without_a_native_beginning_has_the_gateway_s() -> None:
    """Whatever comes first, a message begins with its beginning."""
    ways: list[Callable[[MessageEncoder], bytes]] = [
        lambda written: written.text("Hi"),
        lambda written: written.native(native(*_BLOCK)),
        lambda written: written.text(""),
    ]
    for part in ways:
        written = MessageEncoder(replace(OPENING, native=True), show_reasoning=False)
        told = kinds(written.opening() + part(written) + written.ending(ending(usage=USAGE)))
        assert (told[0], told[-1]) == ("message_start", "message_stop")
        assert told.count("message_start") == 1
