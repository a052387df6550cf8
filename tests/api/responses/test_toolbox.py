"""The tools of the responses dialect, as a model and as a client know them."""

from typing import Any

import pytest

from app.api.responses.toolbox import ClientTool, Toolbox, read_tools
from app.api.wire.custom import custom_arguments, custom_input
from app.domain.errors import InvalidRequest

WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin hunk+"},
}
SERVER = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "d",
    "tools": [{"type": "function", "name": "read"}, {"type": "function", "name": "weather"}],
}


def _read(tools: list[dict[str, Any]], choice: Any = None, *, parallel: bool = True) -> Toolbox:
    return read_tools(tools, choice, parallel=parallel)


def _callable(toolbox: Toolbox) -> tuple[str, set[str]]:
    assert toolbox.use is not None
    return toolbox.use.choice, {tool.name for tool in toolbox.use.callable_tools}


def test_functions_custom_tools_and_namespaces_are_functions_to_the_model() -> None:
    """Each gets a name of its own, and each name leads back to the tool as the client named it."""
    toolbox = _read([WEATHER, PATCH, SERVER], parallel=False)
    assert toolbox.use is not None
    assert [tool.name for tool in toolbox.use.tools] == [
        "weather", "apply_patch", "mcp__files__read", "mcp__files__weather",
    ]  # fmt: skip
    assert (toolbox.use.tools[0].strict, toolbox.use.tools[2].strict, toolbox.use.parallel) == (True, False, False)
    assert toolbox.find("mcp__files__read") == ClientTool("read", "mcp__files")
    assert toolbox.find("apply_patch").is_custom
    assert toolbox.find("unheard_of") == ClientTool("unheard_of")


def test_a_custom_tools_grammar_is_told_to_the_model() -> None:
    """A model that only knows functions learns from the description what the one input must look like."""
    toolbox = _read([PATCH])
    assert toolbox.use is not None
    [tool] = toolbox.use.tools
    assert tool.description == "Edit files.\nThe input must fit this lark grammar:\nstart: begin hunk+"
    assert tool.parameters["required"] == ["input"]


@pytest.mark.parametrize("text", ["", "*** Begin Patch\n+ü\n", '{"input": 1}'])
def test_a_custom_tools_input_comes_back_as_it_was(text: str) -> None:
    """As the arguments of a function, and back again."""
    assert custom_input(custom_arguments(text)) == text


@pytest.mark.parametrize("arguments", ["*** Begin Patch", '{"patch": "x"}', '{"input": 1}', "[]", '"x"'])
def test_arguments_that_are_no_custom_input_are_taken_as_they_are(arguments: str) -> None:
    """A model that forgets the form loses nothing of what it wrote."""
    assert custom_input(arguments) == arguments


def test_built_in_tools_are_passed_over_and_named() -> None:
    """What only OpenAI could run is no reason to refuse, but it is told; alone they are as good as no tools."""
    built_in = [{"type": "web_search"}, {"type": "local_shell"}, {"type": "web_search"}]
    toolbox = _read([*built_in, WEATHER], "auto")
    assert toolbox.passed_over == ("web_search", "local_shell")
    assert _callable(toolbox) == ("auto", {"weather"})
    assert _read(built_in, "auto").use is None


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ("auto", {"weather", "apply_patch", "mcp__files__read", "mcp__files__weather"})),
        ("none", ("none", set())),
        ("required", ("required", {"weather", "apply_patch", "mcp__files__read", "mcp__files__weather"})),
        ({"type": "function", "name": "weather"}, ("required", {"weather"})),
        ({"type": "function", "name": "weather", "namespace": "mcp__files"}, ("required", {"mcp__files__weather"})),
        ({"type": "function", "name": "mcp__files__read"}, ("required", {"mcp__files__read"})),
        ({"type": "custom", "name": "apply_patch"}, ("required", {"apply_patch"})),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [PATCH, {"type": "web_search"}]},
            ("auto", {"apply_patch"}),
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "namespace", "name": "mcp__files"}]},
            ("required", {"mcp__files__read", "mcp__files__weather"}),
        ),
    ],
)
def test_the_choice_is_understood(choice: Any, expected: tuple[str, set[str]]) -> None:
    """None, any, one, or some: by the names that the client knows."""
    assert _callable(_read([WEATHER, PATCH, SERVER], choice)) == expected


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([{"type": "function"}], None, "tools[0].name"),
        ([WEATHER, {"type": "custom", "name": "a b"}], None, "tools[1].name"),
        ([WEATHER, {**WEATHER, "description": "again"}], None, "tools[1].name"),
        ([{**WEATHER, "parameters": "none"}], None, "tools[0].parameters"),
        ([{**SERVER, "tools": [{"type": "function", "name": ""}]}], None, "tools[0].tools[0].name"),
        ([WEATHER], "sometimes", "tool_choice"),
        ([WEATHER], {"type": "function", "name": "time"}, "tool_choice"),
        ([WEATHER], {"type": "custom", "name": "weather"}, "tool_choice"),
        ([WEATHER], {"type": "web_search_preview"}, "tool_choice"),
        ([WEATHER], {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]}, "tool_choice"),
        ([WEATHER], {"type": "allowed_tools", "mode": "auto", "tools": "all"}, "tool_choice.tools"),
        ([WEATHER], {"type": "allowed_tools", "mode": 7, "tools": []}, "tool_choice.mode"),
        ([{"type": "web_search"}], "required", "tool_choice"),
    ],
)
def test_what_is_wrong_with_tools_is_named(tools: list[dict[str, Any]], choice: Any, param: str) -> None:
    """A fault is refused with the place where it is."""
    with pytest.raises(InvalidRequest) as refusal:
        _read(tools, choice)
    assert refusal.value.param == param
