"""How a message's events are read."""

from typing import Any

import pytest

from app.domain.chat import Delta, ToolCallDelta, Usage
from app.domain.errors import EmptyReply, MessageRefused, UnexpectedReply, UpstreamUnavailable
from app.providers.anthropic.failure import anthropic_fault
from app.providers.anthropic.stream import MessageReader


def read(*documents: dict[str, Any], native: bool = False, most: int = 1000) -> list[Delta]:
    """All deltas of a message."""
    reader = MessageReader("claude", most, native=native)
    deltas = [delta for document in documents for delta in reader.feed(document)]
    return [*deltas, *reader.end()]


def start(kind: str, **fields: Any) -> dict[str, Any]:
    """The beginning of a block."""
    return {"type": "content_block_start", "index": 0, "content_block": {"type": kind, **fields}}


def piece(kind: str, **fields: Any) -> dict[str, Any]:
    """A piece of it."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}


STOP = {"type": "content_block_stop", "index": 0}


def ended(reason: str | None, **usage: Any) -> dict[str, Any]:
    """The end of a message."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def test_usage_is_gathered_from_both_ends() -> None:
    """The beginning tells what was read, of it what the cache gave and got; the end what was written."""
    counts = {"input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 10, "output_tokens": 1}
    begun = {"type": "message_start", "message": {"usage": counts}}
    last = ended("end_turn", output_tokens=9, input_tokens=None)
    assert read(begun, start("text", text="Hi"), STOP, last)[-1].usage == Usage(35, 9, 20, cache_written_tokens=10)


def test_a_call_without_arguments_has_empty_ones() -> None:
    """The API sends no piece then, and clients want an object."""
    deltas = read(start("tool_use", id="t", name="run", input={}), STOP, ended("tool_use"))
    assert [delta.tool_call for delta in deltas[:-1]] == [
        ToolCallDelta(0, "t", "run"),
        ToolCallDelta(0, arguments="{}"),
    ]


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        *(("end_turn", "stop"), ("stop_sequence", "stop"), ("pause_turn", "stop"), ("max_tokens", "length")),
        *(("tool_use", "tool_calls"), ("refusal", "content_filter"), ("model_context_window_exceeded", "length")),
        *((None, "stop"), ("something_new", "stop")),
    ],
)
def test_every_reason_has_a_meaning(reason: str | None, meant: str) -> None:
    """Those that nobody knows are ends like any other."""
    assert read(start("text", text="Hi"), ended(reason))[-1].finish_reason == meant


@pytest.mark.parametrize(("reason", "error"), [("end_turn", EmptyReply), ("refusal", MessageRefused)])
def test_nothing_is_an_error_but_to_its_own_dialect(reason: str, error: type[Exception]) -> None:
    """An empty answer is refused where it would be converted, and passed on where it isn't."""
    with pytest.raises(error):
        read(ended(reason))
    assert read(ended(reason), native=True)[-1].native[0].type == "message_delta"


def test_what_says_nothing_yet_is_held_back() -> None:
    """As long as nothing has been said another upstream may answer; then all events come, in their order."""
    reader = MessageReader("claude", 1000, native=True)
    assert reader.feed({"type": "message_start", "message": {}}) == []
    assert reader.feed(start("text", text="")) == []
    assert reader.feed({"type": "ping"}) == []
    [delta] = reader.feed(piece("text_delta", text="Hi"))
    assert [event.type for event in delta.native] == ["message_start", "content_block_start", "content_block_delta"]


def test_odd_events_do_no_harm() -> None:
    """Events of no sense are passed over; nothing that could break a line gets into a stream."""
    odd: list[Any] = [
        {},
        {"type": None},
        {"type": "message_start"},
        {"type": "content_block_start"},
        {"type": "content_block_delta", "delta": 7},
        {"type": "a\nb"},
        piece("text_delta", text=None),
        piece("input_json_delta", partial_json="{}"),
        {"type": "message_delta", "delta": None, "usage": []},
    ]
    deltas = read(*odd, start("text", text="Hi"), ended("end_turn"), native=True)
    assert "".join(delta.text for delta in deltas) == "Hi"
    assert not any("\n" in event.type for delta in deltas for event in delta.native)


def test_an_answer_that_is_too_long_is_given_up() -> None:
    """Whatever it consists of: text, arguments, or blocks that nobody reads."""
    long = "x" * 60
    for documents in (
        [start("text", text=""), piece("text_delta", text=long), piece("text_delta", text=long)],
        [start("tool_use", id="t", name="n"), *[piece("input_json_delta", partial_json=long)] * 2],
        [start("web_search_tool_result", content=[long, long])],
    ):
        with pytest.raises(UnexpectedReply, match="longer than 100"):
            read(*documents, native=True, most=100)


def test_what_waits_for_the_end_of_a_call_is_bounded() -> None:
    """It is taken in one go, which may not take long."""
    other = [{**start("text", text="x"), "index": index + 1} for index in range(10_001)]
    with pytest.raises(UnexpectedReply, match="at a time"):
        read(start("tool_use", id="t", name="n"), *other)


def test_a_model_that_gave_up_is_no_answer() -> None:
    """A reason that means a failure is one."""
    with pytest.raises(UpstreamUnavailable):
        read(start("text", text="Hi"), ended("error"))


def test_errors_have_the_status_of_their_type() -> None:
    """Within a stream there is no other; and an answer about errors is none."""
    fault = anthropic_fault({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert fault is not None
    assert (fault.status, fault.message) == (529, "Overloaded")
    assert anthropic_fault({"type": "message", "message": "error", "detail": "error"}) is None
