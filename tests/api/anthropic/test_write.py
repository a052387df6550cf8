"""A whole message, as an SDK reads it."""

import json
from typing import Any

import pytest
from anthropic.types import Message
from msgspec.structs import replace

from app.api.anthropic.write import usage_object, write_message
from app.domain.chat import FinishReason, ToolCall, Usage
from app.domain.errors import UnexpectedReply
from tests.api.answers import answer

USAGE = Usage(30, 12, cached_tokens=10, reasoning_tokens=4)


def written(text: str, reason: FinishReason = "stop", *, show_reasoning: bool = True, **fields: Any) -> dict[str, Any]:
    """A message, as JSON."""
    document = json.loads(write_message([answer(text, reason, USAGE, **fields)], show_reasoning=show_reasoning))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    ("reason", "stop", "told", "sequence"),
    [
        ("stop", None, "end_turn", None),
        ("stop", "END", "stop_sequence", "END"),
        ("length", None, "max_tokens", None),
        ("tool_calls", None, "tool_use", None),
        ("tool_calls", "END", "tool_use", None),
        ("content_filter", None, "refusal", None),
    ],
)
def test_why_it_ended(reason: FinishReason, stop: str | None, told: str, sequence: str | None) -> None:
    """Each way to end has its name; of a stop sequence it is told which."""
    message = written("Hi", reason, stop=stop)
    assert (message["stop_reason"], message["stop_sequence"]) == (told, sequence)


def test_the_usage_tells_what_was_cached_apart() -> None:
    """Tokens from a cache are not among the input tokens; the sum is what was read."""
    counts = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 12,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert written("Hi")["usage"] == usage_object(USAGE) == counts
    assert "output_tokens_details" not in usage_object(Usage(1, 1))


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_a_whole_message_is_what_the_sdk_expects(reason: FinishReason) -> None:
    """Thoughts, text and tools are blocks in that order, and the message is a valid one."""
    call = ToolCall("c", "clock", '{"zone":"CET"}')
    message = written("Hi", reason, tool_calls=(call,), reasoning="Hm.")
    read = Message.model_validate(message, strict=True)
    assert read.id.startswith("msg_")
    assert read.model == "kimi"
    assert [block.type for block in read.content] == ["thinking", "text", "tool_use"]
    assert read.content[-1].to_dict() == {"type": "tool_use", "id": "c", "name": "clock", "input": {"zone": "CET"}}


def test_a_whole_message_without_thoughts_or_text() -> None:
    """What isn't wanted, or isn't there, makes no block; a call may come without arguments."""
    call = ToolCall("c", "clock", "")
    content = written("", "tool_calls", show_reasoning=False, tool_calls=(call,), reasoning="Hm.")["content"]
    assert content == [{"type": "tool_use", "id": "c", "name": "clock", "input": {}}]


@pytest.mark.parametrize("arguments", ["{", "[]", "null", '"a"'])
def test_arguments_that_are_no_object_are_an_unexpected_reply(arguments: str) -> None:
    """There is no way to show such a call: it is the upstream's fault, and said to be."""
    with pytest.raises(UnexpectedReply):
        written("", "tool_calls", tool_calls=(ToolCall("c", "clock", arguments),))


def test_a_refusal_is_told_by_the_stop_reason() -> None:
    """Its words are a text block, and `stop_reason` says what they are."""
    written = json.loads(write_message([answer("", refusal="I can't.")], show_reasoning=False))
    assert written["content"] == [{"type": "text", "text": "I can't."}]
    assert written["stop_reason"] == "refusal"


@pytest.mark.parametrize(("reason", "told"), [("length", "max_tokens"), ("content_filter", "refusal")])
@pytest.mark.parametrize("arguments", ["{", '{"path": "al', "[1"])
def test_a_call_that_was_cut_is_left_out(reason: FinishReason, told: str, arguments: str) -> None:
    """The text and the calls before it stay, and the reason says why the answer ended."""
    calls = (ToolCall("c", "clock", '{"zone":"CET"}'), ToolCall("d", "read", arguments))
    message = written("Looking.", reason, tool_calls=calls)
    assert message["stop_reason"] == told
    assert [block.get("text") or block["id"] for block in message["content"]] == ["Looking.", "c"]


def test_an_empty_answer_is_a_message_without_content() -> None:
    """A model that has nothing to add has ended."""
    message = written("")
    assert (message["content"], message["stop_reason"]) == ([], "end_turn")


def test_a_native_message_stays_but_for_the_model_s_name() -> None:
    """What is known of it beside is of no consequence; a notice of the gateway's is a block below."""
    own: dict[str, object] = {
        "id": "msg_own",
        "type": "message",
        "role": "assistant",
        "model": "own",
        "stop_reason": "end_turn",
        "content": [{"type": "thinking", "signature": "s"}],
        "usage": {"output_tokens": 3},
    }
    assert written("Hi", native=own) == {**own, "model": "kimi"}
    told = answer("Hi", native=own)
    noted = replace(told, ending=replace(told.ending, notice="> Note")).as_shown()
    content = json.loads(write_message([noted], show_reasoning=False))["content"]
    assert content == [{"type": "thinking", "signature": "s"}, {"type": "text", "text": "> Note"}]


def test_what_a_cache_got_is_told_apart() -> None:
    """Tokens that were put into the upstream's cache are not among those that were read anew."""
    counts = usage_object(Usage(35, 9, 20, cache_written_tokens=10))
    told = (counts["input_tokens"], counts["cache_read_input_tokens"], counts["cache_creation_input_tokens"])
    assert told == (5, 20, 10)
