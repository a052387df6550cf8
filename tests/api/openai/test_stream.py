"""The stream as an OpenAI SDK reads it: by the SDK's own parser and types."""

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletionChunk

from app.api.openai.stream import ChunkEncoder
from app.api.wire.openai import DONE
from app.chat.events import Ending
from app.domain.chat import Delta, FinishReason, ToolCallDelta, Usage
from app.domain.errors import GatewayError, MessageRefused, UpstreamTimeout
from tests.api.answers import OPENING, ending
from tests.domain.strategies import UNTIMED, texts, wild_texts

ENDING = ending(usage=Usage(3, 4))


def _encoder(*, include_usage: bool = False, model: str = "kimi") -> ChunkEncoder:
    return ChunkEncoder(replace(OPENING, model=model), include_usage=include_usage)


def _stream(parts: list[str], *, include_usage: bool = False, end: Ending = ENDING) -> bytes:
    encoder = _encoder(include_usage=include_usage)
    return encoder.opening() + b"".join(encoder.text(part) for part in parts) + encoder.ending(end)


def _events(stream: bytes, cuts: list[int] | None = None) -> list[str]:
    """The data of each event, of a stream that arrives cut at these places."""
    places = [0, *sorted(cuts or ()), len(stream)]
    packets: Iterator[bytes] = (stream[start:end] for start, end in pairwise(places))
    return [event.data for event in SSEDecoder().iter_bytes(packets)]


def _chunks(stream: bytes) -> list[dict[str, Any]]:
    *chunks, done = _events(stream)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


@UNTIMED
@given(parts=st.lists(texts, max_size=6), include_usage=st.booleans(), data=st.data())
def test_any_text_comes_out_as_it_went_in(parts: list[str], include_usage: bool, data: st.DataObject) -> None:
    """Whatever the text and wherever the network cuts it, the SDK reads exactly the pieces that were written."""
    stream = _stream(parts, include_usage=include_usage)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    *events, done = _events(stream, cuts)
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in events]
    written = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert done == "[DONE]"
    assert written == ["", *parts, None]


def test_chunks_come_in_the_order_that_clients_rely_on() -> None:
    """The role, the text, the one finish reason with an empty delta, and the mark of the end."""
    choices = [chunk["choices"] for chunk in _chunks(_stream(["Hel", "lo"]))]
    assert choices == [
        [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
        [{"index": 0, "delta": {"content": "Hel"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "lo"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}],
    ]
    assert _stream([]).endswith(b"data: [DONE]\n\n")
    assert DONE == b"data: [DONE]\n\n"


@pytest.mark.parametrize("include_usage", [False, True])
def test_all_chunks_are_of_one_completion(include_usage: bool) -> None:
    """Id, time, model and kind are the same in every chunk; another answer has another id."""
    common = ("id", "object", "created", "model")
    before = int(time.time())
    chunks = _chunks(_stream(["a"], include_usage=include_usage))
    heads = [tuple(chunk[name] for name in common) for chunk in chunks]
    [(chunk_id, kind, created, model)] = set(heads)
    assert len(heads) == (4 if include_usage else 3)
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", chunk_id)
    assert (kind, model) == ("chat.completion.chunk", "kimi")
    assert before <= created <= time.time()
    assert chunk_id not in _stream([]).decode()


def test_usage_is_not_mentioned_unless_it_is_wanted() -> None:
    """Without `include_usage` no chunk has the field, and none is without a choice."""
    chunks = _chunks(_stream(["a", "b"]))
    assert ["usage" in chunk for chunk in chunks] == [False] * 4
    assert [len(chunk["choices"]) for chunk in chunks] == [1] * 4


def test_usage_comes_last_and_is_null_before() -> None:
    """With `include_usage` a last chunk without choices holds it, and all chunks before say null."""
    *before, last = _chunks(_stream(["a", "b"], include_usage=True))
    assert [chunk["usage"] for chunk in before] == [None] * 4
    assert before[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_the_finish_reason_is_told_once(reason: FinishReason) -> None:
    """Whatever ended the answer is in exactly one chunk, after all text."""
    chunks = _chunks(_stream(["a"], end=ending(reason)))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, reason]


@UNTIMED
@given(model=texts)
def test_any_model_name_can_be_told(model: str) -> None:
    """A model's name may hold quotes, line ends and letters of any script."""
    [event] = _events(_encoder(model=model).opening())
    assert json.loads(event)["model"] == model


@UNTIMED
@given(message=wild_texts)
def test_a_failure_is_one_event_and_no_end(message: str) -> None:
    """Whatever a failure says, it is one error object, and no `[DONE]` makes the answer look complete."""
    encoder = _encoder()
    events = _events(encoder.opening() + encoder.text("half of") + encoder.failure(UpstreamTimeout(message)))
    assert len(events) == 3
    assert "[DONE]" not in events
    assert json.loads(events[-1]) == {
        "error": {
            "message": message.encode("utf-8", "replace").decode(),
            "type": "server_error",
            "param": None,
            "code": "upstream_timeout",
        }
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GatewayError("a"), {"message": "a", "type": "server_error", "param": None, "code": None}),
        (
            MessageRefused("b", param="messages", code="content_filter"),
            {"message": "b", "type": "invalid_request_error", "param": "messages", "code": "content_filter"},
        ),
    ],
)
def test_a_failure_has_all_four_fields(error: GatewayError, expected: dict[str, object]) -> None:
    """Message, type, param and code are always there, null where unknown."""
    [event] = _events(_encoder().failure(error))
    assert json.loads(event) == {"error": expected}


def test_no_text_makes_a_line_end_in_the_stream() -> None:
    """Unicode's further line ends are escaped: clients that split with str.splitlines read the chunk whole."""
    chunk = _encoder().text("one\u2028two\u2029three\x85four").decode()
    assert len(chunk.splitlines()) == 2
    assert (
        json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"]["content"] == "one\u2028two\u2029three\x85four"
    )


def test_the_older_form_tells_one_call() -> None:
    """An upstream that calls several functions at once, though it was asked not to, doesn't mix up their arguments."""
    encoder = ChunkEncoder(OPENING, include_usage=False, legacy=True)
    told = encoder.tool_call(ToolCallDelta(0, "a", "f", "{}")) + encoder.tool_call(ToolCallDelta(1, "b", "g", "{}"))
    chunk, last = _chunks(told + encoder.ending(ending("tool_calls")))
    assert chunk["choices"][0]["delta"] == {"function_call": {"name": "f", "arguments": "{}"}}
    assert last["choices"][0]["finish_reason"] == "function_call"


def test_a_tool_call_comes_in_pieces() -> None:
    """Id, type and name come with a call's first piece, and its index with each."""
    encoder = _encoder()
    told = encoder.tool_call(ToolCallDelta(1, "c", "f", "{")) + encoder.tool_call(ToolCallDelta(1, arguments="}"))
    first, second, _ = _chunks(told + encoder.ending(ENDING))
    assert first["choices"][0]["delta"]["tool_calls"] == [
        {"index": 1, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    ]
    assert second["choices"][0]["delta"]["tool_calls"] == [{"index": 1, "function": {"arguments": "}"}}]


def test_thoughts_have_a_field_of_their_own() -> None:
    """What is thought doesn't get into the text."""
    encoder = _encoder()
    chunk, _ = _chunks(encoder.reasoning("Hm.") + encoder.ending(ENDING))
    assert chunk["choices"][0]["delta"] == {"reasoning_content": "Hm."}


def test_refusals_and_extras_come_in_the_fields_of_their_own() -> None:
    """A refusal is no content; annotations, signatures and logprobs come as the provider wrote them."""
    encoder = _encoder()
    logprobs: dict[str, Any] = {
        "content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": []}],
        "refusal": None,
    }
    signed = ToolCallDelta(0, "call_1", "now", "{}", {"extra_content": {"google": {"thought_signature": "c2ln"}}})
    stream = encoder.refusal("I can't.") + encoder.extras("Hi", {"logprobs": logprobs})
    stream += encoder.extras("", {"annotations": [{"type": "url_citation"}]}) + encoder.tool_call(signed)
    choices = [chunk["choices"][0] for chunk in _chunks(stream + DONE)]
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    assert [choice["delta"] for choice in choices] == [
        {"refusal": "I can't."},
        {"content": "Hi"},
        {"annotations": [{"type": "url_citation"}]},
        {"tool_calls": [{**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}]},
    ]
    assert [choice["logprobs"] for choice in choices] == [None, logprobs, None, None]


def test_several_answers_come_under_their_index() -> None:
    """Each begins with its role and ends with a reason of its own."""
    encoder = _encoder()
    stream = encoder.opening() + encoder.text("Rain.") + encoder.other_choice(Delta("Snow.", choice=1))
    stream += encoder.other_choice(Delta(reasoning="Hm.", refusal="No.", choice=2))
    stream += encoder.other_choice(Delta(finish_reason="length", choice=1)) + encoder.ending(ENDING)
    choices = [chunk["choices"][0] for chunk in _chunks(stream)]
    assert [(choice["index"], choice["delta"], choice["finish_reason"]) for choice in choices] == [
        (0, {"role": "assistant", "content": ""}, None),
        (0, {"content": "Rain."}, None),
        (1, {"role": "assistant", "content": ""}, None),
        (1, {"content": "Snow."}, None),
        (2, {"role": "assistant", "content": ""}, None),
        (2, {"reasoning_content": "Hm."}, None),
        (2, {"refusal": "No."}, None),
        (1, {}, "length"),
        (0, {}, "stop"),
    ]
