"""The stream as OpenAI's SDK reads it: by its own parser, types and accumulator."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import Omit
from openai._streaming import SSEDecoder
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from app.api.responses.output import ResponseDraft, echo_of
from app.api.responses.schemas import ResponsesRequest
from app.api.responses.stream import ResponseEncoder
from app.api.responses.toolbox import Toolbox, read_tools
from app.domain.chat import ToolCallDelta, Usage
from app.domain.errors import ContextTooLong, GatewayError, InvalidRequest, UpstreamRateLimited, UpstreamTimeout
from tests.api.answers import ending
from tests.domain.strategies import UNTIMED, texts

ENDING = ending(usage=Usage(3, 4, cached_tokens=1, reasoning_tokens=2))
TOOLBOX = read_tools(
    [
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "mcp__files", "tools": [{"type": "function", "name": "read"}]},
    ],
    None,
    parallel=True,
)
_events: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def _encoder(toolbox: Toolbox = TOOLBOX, *, stored: bool = True, **fields: Any) -> ResponseEncoder:
    echo = echo_of(ResponsesRequest.model_validate({"input": "Hi", **fields}))
    draft = ResponseDraft("resp_" + "a" * 32, 1_700_000_000, "kimi", echo, store=True)
    return ResponseEncoder(draft, toolbox, is_stored=lambda: stored)


def _read(stream: bytes) -> list[dict[str, Any]]:
    """The events: each fits the SDK's types, has its own name and the next number."""
    documents: list[dict[str, Any]] = []
    for number, event in enumerate(SSEDecoder().iter_bytes(iter([stream]))):
        documents.append(json.loads(event.data))
        assert documents[-1]["type"] == event.event
        assert documents[-1]["sequence_number"] == number
        _events.validate_python(documents[-1])
    return documents


def _kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def _accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response as the SDK's helper puts it together, which insists on the order."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=Omit(), text_format=Omit())
    for event in events:
        state.handle_event(_events.validate_python(event))
    assert state._completed_response is not None
    return state._completed_response.to_dict()


@UNTIMED
@given(parts=st.lists(texts, max_size=6))
def test_any_text_comes_out_as_it_went_in(parts: list[str]) -> None:
    """Whatever the text, its pieces add up to the text that the closing events and the response have."""
    encoder = _encoder()
    stream = encoder.opening() + b"".join(encoder.text(part) for part in parts) + encoder.ending(ENDING)
    events = _read(stream)
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    done = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    assert deltas == parts
    assert done == ["".join(parts)]
    assert _accumulated(events)["output"][0]["content"][0]["text"] == "".join(parts)


def test_events_of_a_text_come_in_the_order_that_clients_rely_on() -> None:
    """Created, in progress, item, part, pieces, and all of it closed again; an empty answer has the same frame."""
    encoder = _encoder()
    opened = ["created", "in_progress", "output_item.added", "content_part.added"]
    closed = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    stream = encoder.opening() + encoder.text("Hel") + encoder.text("lo") + encoder.ending(ENDING)
    assert _kinds(_read(stream)) == [*opened, "output_text.delta", "output_text.delta", *closed]
    encoder = _encoder()
    assert _kinds(_read(encoder.opening() + encoder.ending(ENDING))) == [*opened, *closed]


def test_an_item_is_closed_before_the_next_one_is_opened() -> None:
    """Thoughts, words, a function in a namespace and a custom tool: four items, each with its own kind of events."""
    encoder = _encoder()
    stream = (
        encoder.opening()
        + encoder.reasoning("Hm")
        + encoder.reasoning(".")
        + encoder.text("Let me look.")
        + encoder.tool_call(ToolCallDelta(0, "call_1", "mcp__files__read", '{"a"'))
        + encoder.tool_call(ToolCallDelta(0, arguments=":1}"))
        + encoder.tool_call(ToolCallDelta(1, "call_2", "apply_patch", '{"input": "*** '))
        + encoder.tool_call(ToolCallDelta(1, arguments='Begin"}'))
        + encoder.ending(ending("tool_calls"))
    )
    events = _read(stream)
    assert _kinds(events)[2:-1] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done",
    ]  # fmt: skip
    thought, said, called, patched = events[-1]["response"]["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert said["content"][0]["text"] == "Let me look."
    assert (called["call_id"], called["name"], called["namespace"]) == ("call_1", "read", "mcp__files")
    assert called["arguments"] == '{"a":1}'
    assert (patched["type"], patched["name"], patched["input"]) == ("custom_tool_call", "apply_patch", "*** Begin")
    assert [item["id"] for item in _accumulated(events)["output"]] == [
        event["item"]["id"] for event in events if event["type"] == "response.output_item.done"
    ]


def test_each_call_is_an_item_of_its_own() -> None:
    """Two calls of one function are told apart by their index; one without arguments has none."""
    encoder = _encoder(Toolbox())
    stream = encoder.opening()
    for index in range(2):
        stream += encoder.tool_call(ToolCallDelta(index, f"call_{index}", "now"))
    output = _read(stream + encoder.ending(ENDING))[-1]["response"]["output"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output] == [
        ("call_0", "now", ""),
        ("call_1", "now", ""),
    ]


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_off_is_incomplete(reason: Any, told: str) -> None:
    """The last event says so, and why; the item that was cut off is incomplete too."""
    encoder = _encoder()
    events = _read(encoder.opening() + encoder.text("Hel") + encoder.ending(ending(reason)))
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": told})
    assert response["output"][0]["status"] == "incomplete"


def test_the_response_tells_what_was_asked_and_used() -> None:
    """Metadata and settings come back, usage in this dialect's words, and whether it is kept."""
    fields: dict[str, Any] = {
        "metadata": {"a": "b"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    }
    encoder = _encoder(stored=False, **fields)
    response = _read(encoder.opening() + encoder.ending(ENDING))[-1]["response"]
    assert response["metadata"] == {"a": "b"}
    assert response["text"] == fields["text"]
    assert response["store"] is False
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamTimeout("a", param="messages"), "server_error"),
        (UpstreamRateLimited("b", param="messages"), "rate_limit_exceeded"),
        (InvalidRequest("c", param="messages"), "invalid_prompt"),
    ],
)
def test_a_failure_is_told_to_those_who_read_events_and_to_those_who_wait_for_errors(
    error: GatewayError, code: str
) -> None:
    """A failed response with what had been said, then an error object that makes the SDK raise; never an end."""
    encoder = _encoder()
    events = _read(encoder.opening() + encoder.text("half of") + encoder.failure(error))
    failed, told = events[-2:]
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": code, "message": error.message}
    assert failed["response"]["output"][0]["content"][0]["text"] == "half of"
    assert told["type"] == "error"
    assert told["error"] == {"message": error.message, "type": error.type, "param": "input", "code": error.code}
    assert (told["message"], told["param"], told["code"]) == (error.message, "input", error.code)


def test_a_conversation_that_is_too_long_is_named_as_codex_knows_it() -> None:
    """Codex begins a shorter conversation when it reads this code."""
    stream = _encoder().failure(ContextTooLong("Too long."))
    failed = json.loads(next(iter(SSEDecoder().iter_bytes(iter([stream])))).data)
    assert failed["response"]["error"]["code"] == "context_length_exceeded"


def test_no_text_makes_a_line_end_in_the_stream() -> None:
    """Unicode's further line ends are escaped: clients that split with str.splitlines read each event whole."""
    encoder = _encoder()
    encoder.opening()
    encoder.text("x")
    assert len(encoder.text("one\u2028two\u2029three\x85four").decode().splitlines()) == 3


def test_a_refusal_is_a_part_of_its_own() -> None:
    """It is opened, grows and ends as a refusal, and is one in the response."""
    encoder = _encoder()
    stream = encoder.opening() + encoder.refusal("I ") + encoder.refusal("can't.")
    documents = _read(stream + encoder.ending(ending(refusal="I can't.")))
    assert [document["type"] for document in documents[2:-1]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    (item,) = documents[-1]["response"]["output"]
    assert (item["type"], item["content"]) == ("message", [{"type": "refusal", "refusal": "I can't."}])


def test_annotations_and_signatures_are_passed_on() -> None:
    """Annotations in the form of this dialect, with an event each; a call's signature on its item."""
    encoder = _encoder()
    cited = {"url": "https://example.org", "title": "x", "start_index": 0, "end_index": 2}
    extras = {"annotations": [{"type": "url_citation", "url_citation": cited}]}
    signed = ToolCallDelta(0, "call_1", "now", "{}", {"extra_content": {"signature": "c2ln"}})
    stream = encoder.opening() + encoder.extras("Hi", extras) + encoder.tool_call(signed)
    documents = _read(stream + encoder.ending(ending()))
    added = [document for document in documents if document["type"] == "response.output_text.annotation.added"]
    assert [document["annotation"] for document in added] == [{"type": "url_citation", **cited}]
    message, call = documents[-1]["response"]["output"]
    assert message["content"][0]["annotations"] == [{"type": "url_citation", **cited}]
    assert call["extra_content"] == {"signature": "c2ln"}
