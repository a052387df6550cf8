"""What every dialect checks about the tools of a request, once they have been read."""

from collections.abc import Callable, Sequence
from typing import Literal

from app.api.wire.faults import too_many
from app.domain.chat import Tool, ToolUse
from app.domain.errors import InvalidRequest

_MAX_TOOLS = 512


def tool_use(
    tools: Sequence[Tool],
    *,
    choice: Literal["none", "auto", "required"] = "auto",
    allowed: Sequence[str] | None = None,
    parallel: bool = True,
    param: Callable[[int], str] = lambda index: f"tools[{index}].function.name",
) -> ToolUse | None:
    """The tools of a request, or None if there are none.

    Args:
        choice: Whether one is to be called.
        allowed: The names of those that may be called now; None for all.
        param: Names the field in which a tool's name came.

    Raises:
        InvalidRequest: A name comes twice, or one is to be called that there is none of.
    """
    known = _names(tools, param)
    for name in allowed or ():
        if name not in known:
            raise InvalidRequest(
                f"tool_choice names {name[:100]!r}, which is not among the tools.",
                param="tool_choice",
                code="invalid_value",
            )
    if not tools:
        if choice == "required":
            raise InvalidRequest(
                "tool_choice requires a tool call, but there are no tools.", param="tool_choice", code="invalid_value"
            )
        return None
    if allowed is None:
        return ToolUse(tuple(tools), choice, None, parallel)
    if not allowed and choice == "required":
        raise InvalidRequest(
            "tool_choice requires a tool call, but allows no tool.", param="tool_choice", code="invalid_value"
        )
    return ToolUse(tuple(tools), choice if allowed else "none", frozenset(allowed), parallel)


def _names(tools: Sequence[Tool], param: Callable[[int], str]) -> set[str]:
    known: set[str] = set()
    for index, tool in enumerate(tools):
        if not tool.name:
            raise InvalidRequest("A tool must have a name.", param=param(index), code="missing_required_parameter")
        if tool.name in known:
            raise InvalidRequest(
                f"Two tools have the name {tool.name[:100]!r}.", param=param(index), code="invalid_value"
            )
        known.add(tool.name)
    if len(tools) > _MAX_TOOLS:
        raise too_many("tools", _MAX_TOOLS, len(tools))
    return known
