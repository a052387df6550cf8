"""What gives way where a model's limit leaves no room to tell it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chat.fitting import Fitted, fitted, tools_among
from app.domain.chat import PLAIN_TEXT, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.emulation.emulator import Emulator
from app.domain.prompt import PromptLimit, TextPrompt, compose
from tests.domain.messages import assistant, user
from tests.domain.strategies import UNTIMED

ASKED = (user("What now?"),)
LIMIT = PromptLimit(1000)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "description": "x" * 900}}}


def _tool(name: str, size: int = 100) -> Tool:
    return Tool(name, "d" * size, {"type": "object"})


def _emulator(tools: ToolUse | None, output_format: OutputFormat) -> Emulator:
    return Emulator(tools=tools, output_format=output_format, tag="k3f9x2")


def _fitted(
    tools: tuple[Tool, ...],
    messages: tuple[Message, ...] = ASKED,
    output_format: OutputFormat = PLAIN_TEXT,
    limit: PromptLimit = LIMIT,
    **use: Any,
) -> Fitted:
    return fitted(ToolUse(tools, **use) if tools else None, output_format, _emulator, messages, limit)


def test_what_fits_is_told() -> None:
    """Tools that fit into half of the room are all told of."""
    told = _fitted((_tool("one"), _tool("two")))
    assert told.left_out == ()
    assert told.emulator is not None
    assert "one(" in told.emulator.instructions
    assert "two(" in told.emulator.instructions


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        (ASKED, "a"),
        ((user("Ask d, please."),), "d"),
        ((user("Hi"), assistant("", ToolCall("1", "c", "{}")), user("And?")), "c"),
        ((user("Hi"), assistant("", ToolCall("1", "c", "{}")), user("Now d")), "c"),
    ],
)
def test_the_most_important_tools_stay(messages: tuple[Message, ...], kept: str) -> None:
    """First those that were called before, then those that the last message names, then in their order."""
    names = "abcd"
    told = _fitted(tuple(_tool(name, 200) for name in names), messages)
    assert told.left_out == tuple(f"tools.{name}" for name in names if name != kept)


@pytest.mark.parametrize("size", [260, 5000])
def test_a_tool_that_never_fits_keeps_no_other_out(size: int) -> None:
    """The first tool may be too large, even if it was called before: the next ones are told of."""
    called = (user("Hi"), assistant("", ToolCall("1", "large", "{}")), user("And?"))
    for messages in (ASKED, called):
        assert _fitted((_tool("large", size), _tool("small")), messages).left_out == ("tools.large",)


def test_room_that_grows_step_by_step_costs_no_tool() -> None:
    """The first tool is larger than the others: they aren't told in its place until it fits, and then gone again."""
    tools = (_tool("first", 200), _tool("second", 30), _tool("third", 60))
    kept: set[str] = set()
    for size in range(500, 1400):
        names = {tool.name for tool in tools} - {
            name.removeprefix("tools.") for name in _fitted(tools, limit=PromptLimit(size)).left_out
        }
        assert kept <= names
        kept = names
    assert kept == {"first", "second", "third"}


def test_tools_are_told_in_few_words_before_one_is_left_out() -> None:
    """Each with its first sentence; that something is missing is told under one name, which is no tool's."""
    tools = tuple(Tool(name, f"Finds {name}. " + "At length. " * 50, {"type": "object"}) for name in "abc")
    told = _fitted(tools)
    assert told.left_out == ("tools[].description",)
    assert tools_among(told.left_out) == 0
    assert told.emulator is not None
    assert all(f"{name}() - Finds {name}.\n" in told.emulator.instructions for name in "abc")
    assert "At length" not in told.emulator.instructions


def test_types_of_one_name_cost_no_refusal() -> None:
    """In several tools they get numbers, which take room as well."""
    part = {"type": "object", "properties": {"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}}}
    schema = {**part, "$defs": {"p": {"type": "object", "properties": {"x": {"type": "string"}}}}}
    tools = tuple(Tool(f"t{number}", "Does it.", schema) for number in range(12))
    for size in range(600, 1600, 7):
        limit = PromptLimit(size)
        told = _fitted(tools, limit=limit)
        assert told.emulator is None or len(told.emulator.about_tools) <= size // 2


def test_if_none_fits_none_is_told() -> None:
    """Nothing is said of tools at all, and the question goes as it is."""
    assert _fitted((_tool("large", 5000),)) == Fitted(None, ("tools.large",))
    assert _fitted((_tool("one"),), (user("?" * 990),)) == Fitted(None, ("tools.one",))


def test_tools_of_which_nothing_is_told_are_not_left_out() -> None:
    """Those that may not be called now take no room."""
    told = _fitted((_tool("large", 5000), _tool("small")), allowed=frozenset({"small"}))
    assert told.left_out == ()


@pytest.mark.parametrize("output_format", [PLAIN_TEXT, OutputFormat("json_object")])
def test_what_is_demanded_stays(output_format: OutputFormat) -> None:
    """A call that must be made, and a schema that must fit exactly, are told however large they are."""
    told = _fitted((_tool("large", 5000),), output_format=output_format, choice="required")
    assert told.left_out == ()
    strict = _fitted((), output_format=OutputFormat("json_schema", SCHEMA, strict=True))
    assert strict.left_out == ()
    assert strict.emulator is not None
    assert "x" * 900 in strict.emulator.instructions


def test_json_is_asked_for_in_one_line_or_not_at_all() -> None:
    """A schema that need not fit gives way to any JSON, and that to text; the field is named once, by its own name."""
    wanted = OutputFormat("json_schema", SCHEMA, place="text.format")
    loose = _fitted((), output_format=wanted)
    assert loose.left_out == ("text.format",)
    assert loose.emulator is not None
    assert loose.emulator.read('Here: {"b": 1}').text == '{"b": 1}'
    assert _fitted((), (user("?" * 990),), wanted) == Fitted(None, ("text.format",))


@UNTIMED
@given(
    sizes=st.lists(st.integers(0, 600), min_size=1, max_size=8),
    question=st.integers(1, 1000),
    kind=st.sampled_from(["text", "json_object", "json_schema"]),
)
def test_what_is_left_always_fits(sizes: list[int], question: int, kind: Any) -> None:
    """Whatever is optional, the prompt is never refused for it, and tools take at most half of it."""
    tools = tuple(_tool(f"t{number}", size) for number, size in enumerate(sizes))
    messages = (user("?" * question),)
    told = _fitted(tools, messages, OutputFormat(kind, SCHEMA if kind == "json_schema" else None))
    instructions = told.emulator.instructions if told.emulator else ""
    assert compose(messages, LIMIT, instructions).size <= LIMIT.size
    assert told.emulator is None or len(told.emulator.about_tools) <= LIMIT.size // 2


_words = st.builds(lambda word, times: word * times, st.sampled_from(["Roses. ", "t1 ", "玫瑰"]), st.integers(1, 60))
_turns = st.lists(st.builds(Message, st.sampled_from(["system", "user", "user", "assistant"]), _words), max_size=8)
_tools = st.lists(
    st.builds(lambda size, sentence: "d" * size + ("." if sentence else ""), st.integers(0, 300), st.booleans()),
    min_size=1,
    max_size=8,
).map(lambda words: tuple(Tool(f"t{n}", f"{text} {'e' * 200}", {"type": "object"}) for n, text in enumerate(words)))


def _composed(told: Fitted, messages: tuple[Message, ...], limit: PromptLimit) -> TextPrompt:
    return compose(messages, limit, told.emulator.instructions if told.emulator else "")


@UNTIMED
@given(turns=_turns, tools=_tools, size=st.integers(400, 2500), more=st.integers(1, 300))
def test_more_room_never_drops_more_where_tools_give_way(
    turns: list[Message], tools: tuple[Tool, ...], size: int, more: int
) -> None:
    """Failed turns or not: no prompt is over its limit or without its last turn; a larger limit leaves no tool out that
    was told of, and, where it tells of no further ones, no message."""
    messages = (*turns, user("What now?"))
    less, wider = PromptLimit(size), PromptLimit(size + more)
    told, told_wider = _fitted(tools, messages, limit=less), _fitted(tools, messages, limit=wider)
    prompt, wider_prompt = _composed(told, messages, less), _composed(told_wider, messages, wider)
    assert prompt.size == len(prompt.text) <= size
    assert prompt.text.endswith("What now?")
    assert {name for name in told_wider.left_out if name.startswith("tools.")} <= set(told.left_out)
    if _instructions(told) == _instructions(told_wider):
        assert wider_prompt.dropped <= prompt.dropped


def _instructions(told: Fitted) -> str:
    return told.emulator.instructions if told.emulator else ""
