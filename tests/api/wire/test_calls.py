"""Tool calls of a history: ids and arguments that clients leave out or write in another form."""

from collections.abc import Sequence
from typing import Any

import pytest

from app.api.dialects import Dialect
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.api.responses.dialect import RESPONSES
from app.api.wire.calls import arguments_text, with_call_ids
from app.domain.chat import Message, ToolCall
from tests.api.reading import read
from tests.domain.messages import assistant, tool, user


def _calls(*ids: str) -> Message:
    return assistant("", *(ToolCall(id_, f"f{number}", "{}") for number, id_ in enumerate(ids)))


def _result(id_: str | None, name: str | None = None) -> Message:
    return Message("tool", "x", name=name, tool_call_id=id_)


@pytest.mark.parametrize(
    ("calls", "results", "call_ids", "result_ids"),
    [
        (["a", "b"], ["a", "b"], ["a", "b"], ["a", "b"]),
        ([""], ["a"], ["a"], ["a"]),
        (["", ""], ["a", "b"], ["a", "b"], ["a", "b"]),
        (["", "a"], ["a", "b"], ["b", "a"], ["a", "b"]),
        (["a", "b"], [None, None], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["b", None], ["a", "b"], ["b", "a"]),
        (["", ""], [None, None], ["call_1_0", "call_1_1"], ["call_1_0", "call_1_1"]),
        ([""], [], ["call_1_0"], []),
        (["a"], ["a", None], ["a"], ["a", None]),
        (["a"], ["z"], ["a"], ["z"]),
    ],
)
def test_an_id_is_found_on_the_other_side_or_made(
    calls: list[str], results: list[str | None], call_ids: list[str], result_ids: list[str | None]
) -> None:
    """Calls and results that are told apart stay so; those without an id are matched in their order."""
    history = (user("Hi"), _calls(*calls), *map(_result, results), user("Go on."))
    named = with_call_ids(history)
    assert [call.id for call in named[1].tool_calls] == call_ids
    assert [message.tool_call_id for message in named[2:-1]] == result_ids
    assert (named[0], named[-1]) == (history[0], history[-1])


def test_a_result_that_names_its_function_belongs_to_that_call() -> None:
    """Whatever order the results come in."""
    named = with_call_ids([_calls("a", "b"), _result(None, "f1"), _result(None, "f0")])
    assert [message.tool_call_id for message in named[1:]] == ["b", "a"]


@pytest.mark.parametrize("name", [None, "other", "f{}"], ids=["no name", "another's", "its own"])
def test_results_without_ids_are_given_to_calls_in_linear_time(name: str | None) -> None:
    """However many there are, in whatever order: looking through all calls for each would take minutes."""
    count = 60_000
    calls = _calls(*(f"call{number}" for number in range(count)))
    results = [_result(None, name and name.format(number)) for number in reversed(range(count))]
    found = [message.tool_call_id for message in with_call_ids([calls, *results])[1:]]
    ids = [call.id for call in calls.tool_calls]
    assert found == (ids[::-1] if name == "f{}" else ids)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "{}"),
        ("", "{}"),
        (" \n", "{}"),
        ({}, "{}"),
        ({"a": "ü", "b": [1]}, '{"a":"ü","b":[1]}'),
        ('{"a": 1}', '{"a": 1}'),
        ("no JSON", "no JSON"),
    ],
)
def test_arguments_are_text(given: Any, text: str) -> None:
    """Nothing is an empty object, an object is written as JSON, and text stays as it is."""
    assert arguments_text(given) == text


CHAT: Sequence[dict[str, Any]] = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "tool_calls": [{"id": None, "type": None, "function": {"name": "f", "arguments": None}}]},
    {"role": "tool", "tool_call_id": "c", "content": "x"},
)
ITEMS: Sequence[dict[str, Any]] = (
    {"type": None, "role": "user", "content": "Hi"},
    {"type": "function_call", "id": None, "call_id": None, "name": "f", "arguments": None},
    {"type": "function_call_output", "call_id": "c", "output": "x"},
)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [(CHAT_COMPLETIONS, {"messages": CHAT}), (RESPONSES, {"input": ITEMS})],
    ids=["chat", "responses"],
)
def test_a_history_with_nulls_is_understood(dialect: Dialect, body: dict[str, Any]) -> None:
    """In both dialects that have tools the call gets its result's id."""
    assert read(dialect, body).calls[0].messages == (
        user("Hi"), assistant("", ToolCall("c", "f", "{}")), tool("x", "c"),
    )  # fmt: skip
