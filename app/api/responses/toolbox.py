"""The tools of a request, and how calls of them are written. Pure.

A model knows functions only. So a tool in a namespace becomes a function whose name begins with the namespace's; of
custom tools see `app.api.wire.custom`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from app.api.wire.custom import custom_tool
from app.api.wire.faults import invalid_value, missing_parameter, wrong_type
from app.api.wire.tools import tool_use
from app.domain.chat import Tool, ToolUse
from app.domain.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CHOICES: dict[object, Literal["none", "auto", "required"]] = {"none": "none", "auto": "auto", "required": "required"}


class ClientTool(Struct, frozen=True):
    """How a client names a tool."""

    name: str
    namespace: str | None = None
    is_custom: bool = False

    @property
    def function_name(self) -> str:
        """The name by which the model calls it."""
        if not self.namespace:
            return self.name
        return self.namespace + ("" if self.namespace.endswith("__") else "__") + self.name


class Toolbox(Struct, frozen=True):
    """What a request says about tools.

    Args:
        use: For the model; None if there is nothing to call.
        named: How the client names them, by the names that the model knows.
        passed_over: The types of tools that can't be served, in order and once each.
    """

    use: ToolUse | None = None
    named: Mapping[str, ClientTool] = {}
    passed_over: tuple[str, ...] = ()

    def find(self, function_name: str) -> ClientTool:
        """The tool that the model calls by this name."""
        return self.named.get(function_name) or ClientTool(function_name)


def read_tools(
    tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any] | None, *, parallel: bool
) -> Toolbox:
    """What the tools of a request mean. Built-in tools, which only OpenAI could run, are passed over.

    Raises:
        InvalidRequest: A tool isn't described as it must be, or the choice names one that isn't there.
    """
    described: list[tuple[ClientTool, Tool, str]] = []
    passed_over: dict[str, None] = {}
    for entry in _flattened(tools):
        read = _tool(entry)
        if read is None:
            passed_over[entry.kind] = None
        else:
            described.append((*read, f"{entry.place}.name"))
    mode, allowed = _choice(choice, [named for named, _, _ in described])
    use = tool_use(
        [tool for _, tool, _ in described],
        choice=mode,
        allowed=allowed,
        parallel=parallel,
        param=lambda index: described[index][2],
    )
    return Toolbox(use, {tool.name: named for named, tool, _ in described}, tuple(passed_over))


class _Entry(Struct, frozen=True):
    """A tool as it came, and where."""

    place: str
    kind: str
    fields: Mapping[str, Any]
    namespace: str | None = None


def _flattened(tools: Sequence[Mapping[str, Any]]) -> Iterator[_Entry]:
    """All tools, those in namespaces one by one."""
    for index, tool in enumerate(tools):
        place, kind = f"tools[{index}]", _kind(tool)
        nested = tool.get(kind)
        if isinstance(nested, dict) and kind in ("function", "custom"):
            # As chat completions have it.
            yield _Entry(f"{place}.{kind}", kind, nested)
            continue
        inner = tool.get("tools")
        if kind != "namespace" or not isinstance(inner, list):
            yield _Entry(place, kind, tool)
            continue
        namespace = _name(tool, place)
        for number, entry in enumerate(inner):
            if isinstance(entry, dict):
                yield _Entry(f"{place}.tools[{number}]", _kind(entry), entry, namespace)


def _kind(tool: Mapping[str, Any]) -> str:
    return str(tool.get("type") or "function")


def _tool(entry: _Entry) -> tuple[ClientTool, Tool] | None:
    if entry.kind not in ("function", "custom"):
        return None
    fields, place = entry.fields, entry.place
    named = ClientTool(_name(fields, place), entry.namespace, entry.kind == "custom")
    description = str(fields.get("description") or "")
    if named.is_custom:
        return named, custom_tool(named.function_name, description, fields.get("format"))
    parameters = fields.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest("parameters must be a JSON Schema object.", param=f"{place}.parameters")
    strict = fields.get("strict") is True
    return named, Tool(named.function_name, description, parameters or {}, strict, f"{place}.parameters")


def _name(fields: Mapping[str, Any], place: str) -> str:
    name = fields.get("name")
    if name is None:
        raise missing_parameter(f"{place}.name")
    if not isinstance(name, str):
        raise wrong_type(f"{place}.name", "a string", name)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "name must have 1 to 128 characters of A-Z, a-z, 0-9, underscore, dot and hyphen.",
            param=f"{place}.name",
            code="invalid_value",
        )
    return name


def _choice(
    choice: str | Mapping[str, Any] | None, tools: Sequence[ClientTool]
) -> tuple[Literal["none", "auto", "required"], list[str] | None]:
    """Whether a tool is to be called, and the names of those that may be; None for all."""
    if choice is None:
        return "auto", None
    if isinstance(choice, str):
        return _mode(choice, "tool_choice"), None
    if choice.get("type") == "allowed_tools":
        nested = choice.get("allowed_tools")
        choice = nested if isinstance(nested, dict) else choice
        mode = _mode(choice.get("mode") or "auto", "tool_choice.mode")
        return mode, [name for entry in _entries(choice) for name in _names_of(entry, tools)]
    names = _names_of(choice, tools)
    if not names:
        raise InvalidRequest(
            "tool_choice must name a function or custom tool of this request.",
            param="tool_choice",
            code="invalid_value",
        )
    return "required", names


def _entries(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = choice.get("tools")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise wrong_type("tool_choice.tools", "an array of objects", entries)
    return entries


def _mode(value: object, param: str) -> Literal["none", "auto", "required"]:
    mode = _CHOICES.get(value) if isinstance(value, str) else None
    if mode is None:
        raise invalid_value(param, value, "'none', 'auto' and 'required'", "Or name a tool.")
    return mode


def _names_of(entry: Mapping[str, Any], tools: Sequence[ClientTool]) -> list[str]:
    """The functions that an entry of a choice names: one tool, or all of a namespace."""
    kind = _kind(entry)
    nested = entry.get(kind)
    entry = nested if isinstance(nested, dict) else entry
    name = entry.get("name")
    if kind == "namespace":
        return [tool.function_name for tool in tools if tool.namespace == name]
    if kind not in ("function", "custom"):
        return []
    wanted = ClientTool(str(name), entry.get("namespace"), kind == "custom")
    return [
        tool.function_name
        for tool in tools
        if (tool.function_name, tool.is_custom) == (wanted.function_name, wanted.is_custom)
    ]
