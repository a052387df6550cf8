"""Answers in parts and as a whole: nothing is lost between the two, nor said after the end."""

from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chat.deltas import as_deltas, gather, limit_completion, limit_deltas, stream_whole
from app.domain.chat import Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage
from app.domain.output_limiter import OutputLimiter
from tests.domain.strategies import UNTIMED, texts

REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter")
CALL = ToolCallDelta(0, "c0", "look", "{}")

_usages = st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
_completions = st.builds(
    Completion,
    texts,
    st.sampled_from(REASONS),
    _usages,
    st.lists(st.builds(ToolCall, texts, texts, texts), max_size=3).map(tuple),
    texts,
    st.none() | st.just("END"),
)
_calls = st.builds(ToolCallDelta, st.integers(0, 3), st.none() | texts, st.none() | texts, texts)
_deltas = st.builds(
    Delta,
    texts,
    st.booleans(),
    st.none() | st.sampled_from(REASONS),
    _usages,
    texts,
    st.none() | _calls,
    st.none() | st.just("END"),
)


@UNTIMED
@given(completion=_completions)
def test_a_whole_answer_is_the_same_again_after_it_was_taken_apart(completion: Completion) -> None:
    """Text, thoughts, calls, usage and the way it ended survive a stream."""
    assert gather(as_deltas(completion)) == completion


@UNTIMED
@given(deltas=st.lists(_deltas, max_size=8))
def test_any_stream_can_be_gathered_and_streamed_again(deltas: list[Delta]) -> None:
    """However its parts alternate, the second time tells the same, part by part in the same order."""
    completion = gather(deltas)
    assert gather(as_deltas(completion)) == completion
    assert "".join(delta.text for delta in as_deltas(completion)) == "".join(delta.text for delta in deltas)
    if completion.deltas:
        assert _runs(as_deltas(completion)) == _runs(deltas)


def _runs(deltas: Sequence[Delta]) -> list[tuple[str, str]]:
    """What is said, thought and called, neighbours of one kind together."""
    runs: list[tuple[str, str]] = []
    for delta in deltas:
        parts = [("thought", delta.reasoning), ("text", delta.text)]
        parts = [part for part in parts if part[1]]
        if delta.tool_call is not None:
            parts.append((f"call {delta.tool_call.index}", delta.tool_call.arguments))
        for kind, text in parts:
            before = runs.pop()[1] if runs and runs[-1][0] == kind else ""
            runs.append((kind, before + text))
    return runs


def test_thoughts_text_and_calls_in_this_order_are_not_told_twice() -> None:
    """An answer whose parts come in the usual order needs no list of them."""
    deltas = [
        Delta(reasoning="H"),
        Delta(reasoning="m."),
        Delta("Let me "),
        Delta("look."),
        Delta(tool_call=ToolCallDelta(0, "c0", "look", "{")),
        Delta(tool_call=ToolCallDelta(0, arguments="}")),
        Delta(tool_call=ToolCallDelta(1, "c1", "wait", "{}")),
        Delta(finish_reason="tool_calls", usage=Usage(1, 2)),
    ]
    calls = (ToolCall("c0", "look", "{}"), ToolCall("c1", "wait", "{}"))
    assert gather(deltas) == Completion("Let me look.", "tool_calls", Usage(1, 2), calls, "Hm.")


def test_parts_that_alternate_keep_their_order() -> None:
    """A model that thinks again after it has spoken is quoted so, with as few parts as there are turns."""
    deltas = [
        Delta("One"),
        Delta("."),
        Delta(reasoning="Hm"),
        Delta(reasoning="."),
        Delta("Two."),
        Delta(tool_call=CALL),
        Delta("Three.", finish_reason="stop"),
    ]
    completion = gather(deltas)
    assert completion.deltas == (
        Delta("One."),
        Delta(reasoning="Hm."),
        Delta("Two."),
        Delta(tool_call=CALL),
        Delta("Three."),
    )
    assert (completion.text, completion.reasoning) == ("One.Two.Three.", "Hm.")
    assert as_deltas(completion)[:-1] == [*completion.deltas]


def test_an_answer_without_any_part_is_an_empty_one() -> None:
    """Nothing was said, and that was the end."""
    assert gather([]) == Completion("")


async def test_a_whole_answer_is_streamed_in_one_piece() -> None:
    """Whoever shows it may type it out; thoughts come with it, calls after it, the ending last."""

    async def answer() -> Completion:
        return Completion("Hi.", "tool_calls", Usage(1, 2), (ToolCall("c0", "look", "{}"),), "Hm.")

    assert [delta async for delta in stream_whole(answer())] == [
        Delta("Hi.", whole=True, reasoning="Hm."),
        Delta(tool_call=CALL),
        Delta(finish_reason="tool_calls", usage=Usage(1, 2)),
    ]


class _Answer:
    """A provider's stream that notes when it is closed."""

    def __init__(self, *deltas: Delta) -> None:
        self.left = list(deltas)
        self.closed = False

    async def stream(self) -> AsyncGenerator[Delta, None]:
        try:
            while self.left:
                yield self.left.pop(0)
        finally:
            self.closed = True


async def _limited(answer: _Answer, limiter: OutputLimiter) -> Completion:
    return gather([delta async for delta in limit_deltas(answer.stream(), limiter)])


async def test_an_answer_in_parts_ends_where_the_client_wants_it_to() -> None:
    """What comes after the stop text is never asked for, and the upstream's stream is closed."""
    answer = _Answer(Delta(reasoning="Hm."), Delta("One E"), Delta("ND two."), Delta(tool_call=CALL))
    assert await _limited(answer, OutputLimiter(("END",))) == Completion("One ", "stop", reasoning="Hm.", stop="END")
    assert answer.closed
    assert answer.left == [Delta(tool_call=CALL)]


async def test_an_answer_in_parts_within_its_limits_is_passed_on() -> None:
    """Also the beginning of a stop text that never came, and what the upstream said of the end."""
    answer = _Answer(Delta("One E"), Delta(tool_call=CALL), Delta(finish_reason="tool_calls", usage=Usage(1, 2)))
    completion = await _limited(answer, OutputLimiter(("END",)))
    assert (completion.text, completion.tool_calls) == ("One E", (ToolCall("c0", "look", "{}"),))
    assert (completion.finish_reason, completion.usage, completion.stop) == ("tool_calls", Usage(1, 2), None)
    assert answer.closed


async def test_a_text_in_one_piece_stays_one_when_it_is_cut() -> None:
    """It is typed out up to its new end."""
    answer = _Answer(Delta("One END two.", whole=True))
    texts_of_it = [delta async for delta in limit_deltas(answer.stream(), OutputLimiter(("END",))) if delta.text]
    assert "".join(delta.text for delta in texts_of_it) == "One "
    assert all(delta.whole for delta in texts_of_it)


@pytest.mark.parametrize(
    ("limiter", "completion"),
    [
        (OutputLimiter(("END",)), Completion("One ", "stop", Usage(1, 9), reasoning="Hm.", stop="END")),
        (OutputLimiter((), max_tokens=1), Completion("One ", "length", Usage(1, 9), reasoning="Hm.")),
    ],
)
def test_a_whole_answer_ends_where_the_client_wants_it_to(limiter: OutputLimiter, completion: Completion) -> None:
    """Calls that were never made are left out; the tokens were used all the same."""
    answer = Completion("One END two.", "tool_calls", Usage(1, 9), (ToolCall("c0", "look", "{}"),), "Hm.")
    assert limit_completion(answer, limiter) == completion


def test_a_whole_answer_within_its_limits_stays_as_it_is() -> None:
    """Its calls, its count, and the order of its parts."""
    answer = gather([Delta("One."), Delta(reasoning="Hm."), Delta("Two.", usage=Usage(1, 2))])
    assert limit_completion(answer, OutputLimiter(("END",), max_tokens=100)) is answer
