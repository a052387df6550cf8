"""A message's events, as an SDK reads them."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from app.api.anthropic.answer import message_object, stop_reason, usage_object
from app.api.anthropic.sse import MessageEncoder
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.chat.events import Answer, Ending, Opening
from app.domain.chat import FinishReason, ToolCall, ToolCallDelta, Usage
from app.domain.errors import UnexpectedReply, UpstreamTimeout
from app.domain.prompt import Prompt, PromptLimit
from tests.domain.strategies import UNTIMED

_EVENT = TypeAdapter[Any](RawMessageStreamEvent)
USAGE = Usage(30, 12, cached_tokens=10, reasoning_tokens=4)
OPENING = Opening("kimi", "kimi", None, "stateless", Prompt("Hi", 2, PromptLimit(1000)))


def encoder(*, show_reasoning: bool = True) -> MessageEncoder:
    """The encoder of a message."""
    return MessageEncoder(
        message_id="msg_1", model="kimi", input_tokens=7, show_reasoning=show_reasoning, request_id="req_1"
    )


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


def whole(written: MessageEncoder, parts: Iterable[bytes], ending: Ending | None = None) -> bytes:
    """A whole stream."""
    return written.opening() + b"".join(parts) + written.ending(ending or Ending("stop", USAGE))


def test_a_text() -> None:
    """A text is one block, opened by its first piece."""
    written = encoder()
    stream = whole(written, [written.text("Hel"), written.text(""), written.text("lo")])
    start, opened, first, second, closed, delta, stop = events(stream)
    assert start["message"] | {"usage": None} == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "kimi",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": None,
    }
    assert start["message"]["usage"]["input_tokens"] == 7
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
        Ending("tool_calls", USAGE),
    )
    assert kinds(stream) == [
        "message_start",
        "content_block_start thinking",
        *["content_block_delta thinking_delta"] * 2,
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
    assert [event["index"] for event in found if "index" in event] == [0] * 4 + [1] * 3 + [2] * 4 + [3] * 3
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
    ("ending", "reason", "stop"),
    [
        (Ending("stop", USAGE), "end_turn", None),
        (Ending("tool_calls", USAGE, "END"), "tool_use", None),
        (Ending("stop", USAGE, "END"), "stop_sequence", "END"),
        (Ending("length", USAGE), "max_tokens", None),
        (Ending("tool_calls", USAGE), "tool_use", None),
        (Ending("content_filter", USAGE), "refusal", None),
    ],
)
def test_why_it_ended(ending: Ending, reason: str, stop: str | None) -> None:
    """Each way to end has its name, streamed and whole; of a stop sequence it is told which."""
    *_, delta, _ = events(whole(encoder(), [], ending))
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": stop}
    message = message_object(Answer(OPENING, "Hi", ending), message_id="msg_1", show_reasoning=True)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, stop)
    assert stop_reason(ending) == reason


def test_the_usage_tells_what_was_cached_apart() -> None:
    """Tokens from a cache are not among the input tokens; the sum is what was read."""
    assert usage_object(USAGE) == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 12,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert events(whole(encoder(), []))[-2]["usage"] == usage_object(USAGE)
    assert "output_tokens_details" not in usage_object(Usage(1, 1))


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


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_a_whole_message_is_what_the_sdk_expects(reason: FinishReason) -> None:
    """Thoughts, text and tools are blocks in that order, and the message is a valid one."""
    answer = Answer(OPENING, "Hi", Ending(reason, USAGE), (ToolCall("c", "clock", '{"zone":"CET"}'),), "Hm.")
    message = message_object(answer, message_id="msg_1", show_reasoning=True)
    read = Message.model_validate(message, strict=True)
    assert [block.type for block in read.content] == ["thinking", "text", "tool_use"]
    assert read.content[-1].to_dict() == {"type": "tool_use", "id": "c", "name": "clock", "input": {"zone": "CET"}}


def test_a_whole_message_without_thoughts_or_text() -> None:
    """What isn't wanted, or isn't there, makes no block; a call may come without arguments."""
    answer = Answer(OPENING, "", Ending("tool_calls", USAGE), (ToolCall("c", "clock", ""),), "Hm.")
    content = message_object(answer, message_id="msg_1", show_reasoning=False)["content"]
    assert content == [{"type": "tool_use", "id": "c", "name": "clock", "input": {}}]


@pytest.mark.parametrize("arguments", ["{", "[]", "null", '"a"'])
def test_arguments_that_are_no_object_are_an_unexpected_reply(arguments: str) -> None:
    """There is no way to show such a call: it is the upstream's fault, and said to be."""
    answer = Answer(OPENING, "", Ending("tool_calls", USAGE), (ToolCall("c", "clock", arguments),))
    with pytest.raises(UnexpectedReply):
        message_object(answer, message_id="msg_1", show_reasoning=True)
