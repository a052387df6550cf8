"""The tools that a reply may call: finds them by the names that models write, and checks arguments."""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from app.domain.chat import Tool
from app.domain.emulation.coercion import coerced
from app.domain.emulation.jsontext import Fault, dumps, items, loads, members
from app.domain.emulation.repair import repaired
from app.domain.emulation.schema import Effort, SchemaCheck
from app.domain.emulation.schema_graph import extent

# The members of a JSON object by which models write a call, in all forms that are in use.
_NAMES = ("name", "tool_name", "tool", "function", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "params", "tool_input", "action_input")
# Those that hold a call, or several, inside them.
_HOLDERS = ("function", "function_call", "functionCall", "tool_call", "toolCall", "tool_use", "message")
_LISTS = ("tool_calls", "toolCalls", "function_calls", "calls", "content", "parts", "choices")
# What may stand beside them without casting doubt on its being a call.
_BESIDE = frozenset({"id", "type", "index", "call_id", "tool_call_id", "role", "refusal", "status", "finish_reason"})
_TYPES = frozenset({"function", "function_call", "tool_call", "tool_use"})
_PREFIX = "functions."
# How many objects and lists may hold a call.
_DEEPEST = 10
# How many may be within each other in arguments that don't fit.
_DEEPEST_UNCHECKED = 100


class CallText(Struct, frozen=True):
    """A valid call: the tool's exact name, and its arguments as JSON."""

    name: str
    arguments: str


class CallableTools:
    """The tools that may be called in this turn.

    Args:
        tools: The tools.
        checks: For the arguments of each of them, by its name.
        effort: What may be spent on them.
        unchecked: The tools whose arguments may be any JSON object.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        checks: Mapping[str, SchemaCheck],
        effort: Effort,
        *,
        unchecked: Collection[str] = (),
    ) -> None:
        self._effort = effort
        self._unchecked = unchecked
        self._checks = {tool.name: checks[tool.name] for tool in tools}
        self._written: dict[str, list[str]] = {}
        for tool in tools:
            self._written.setdefault(_simplified(tool.name), []).append(tool.name)

    def name(self, written: object) -> str | None:
        """The tool that a model means by a name; None if none matches, or more than one."""
        if not isinstance(written, str):
            return None
        for candidate in (written, written.strip(), written.strip().removeprefix(_PREFIX)):
            if candidate in self._checks:
                return candidate
        meant = self._written.get(_simplified(written.strip().removeprefix(_PREFIX)), [])
        return meant[0] if len(meant) == 1 else None

    def calls(self, value: object, text: str | None) -> list[CallText]:
        """The calls in a JSON value: one object, or an array of them.

        Args:
            value: The value.
            text: The valid JSON that it was read from, which is kept; None if it had to be repaired.

        Raises:
            Fault: A call is invalid.
        """
        return [self.call(*found) for found in self.found(value, text)]

    def found(self, value: object, text: str | None, depth: int = 0) -> list[tuple[object, object, str | None]]:
        """Like `calls`, each still as it was written: its tool, its arguments, and their text."""
        if depth > _DEEPEST:
            raise Fault("the tool call is nested too deeply")
        if isinstance(value, list):
            parts = [(item, None) for item in value] if text is None else items(text, 0)
            return [found for item, part in parts for found in self.found(item, part, depth + 1)]
        if not isinstance(value, dict):
            raise Fault("a tool call is not a JSON object")
        texts = {} if text is None else {name: part for name, _, part in members(text, 0)}
        if not isinstance(value.get("name"), str):
            inner = _inside(value)
            if inner:
                return self.found(value[inner], texts.get(inner), depth + 1)
        key = next((key for key in _NAMES if key in value), None)
        if key is None:
            raise Fault('a tool call has no "name"')
        given = next((name for name in _ARGUMENTS if name in value), "")
        return [(value[key], value.get(given), texts.get(given))]

    def call(self, written: object, arguments: object, text: str | None) -> CallText:
        """The call of a tool by name and arguments, which may be JSON in a string. See `calls`."""
        name = self.name(written)
        if name is None:
            known = ", ".join(self._checks)
            raise Fault(f"there is no tool {str(written)[:64]!r}; the tools are: {known[:300]}")
        if arguments in (None, ""):
            arguments, text = {}, "{}"
        if isinstance(arguments, str):
            arguments, text = _inner(arguments)
        if not isinstance(arguments, dict):
            raise Fault(f"the arguments of {name} are not a JSON object")
        return self._checked(name, arguments, text)

    def is_call(self, value: object, depth: int = 0) -> bool:
        """Whether a JSON value can only be a call of these tools, or several."""
        if depth > _DEEPEST:
            return False
        if isinstance(value, list):
            return bool(value) and all(self.is_call(item, depth + 1) for item in value)
        if not isinstance(value, dict):
            return False
        inner = _inside(value)
        if inner:
            said = value.get("content") if inner != "content" else None
            rest = value.keys() - _BESIDE - {inner, "content"}
            return not rest and isinstance(said, str | None) and self.is_call(value[inner], depth + 1)
        key = next((key for key in _NAMES if self.name(value.get(key)) is not None), "")
        given = [name for name in _ARGUMENTS if name in value]
        has_arguments = len(given) == 1 and isinstance(value[given[0]], dict | str | None)
        is_said = has_arguments or (not given and value.get("type") in _TYPES)
        return bool(key) and is_said and not value.keys() - _BESIDE - {key, *given}

    def _checked(self, name: str, arguments: dict[str, object], text: str | None) -> CallText:
        check = self._checks[name]
        faults = check.faults(arguments, self._effort)
        if faults:
            is_lax = name in self._unchecked and extent(arguments)[0] <= _DEEPEST_UNCHECKED
            arguments, text = _object(coerced(arguments, check, self._effort)), None
            if not is_lax and check.faults(arguments, self._effort):
                raise Fault(f"the arguments of {name} don't fit ({'; '.join(faults)})")
        return CallText(name, dumps(arguments) if text is None else text)


def _inside(value: Mapping[str, object]) -> str:
    """The member of a JSON object that holds its calls; "" if they aren't inside another one."""
    found = next((key for key in _LISTS if isinstance(value.get(key), list)), "")
    return found or next((key for key in _HOLDERS if isinstance(value.get(key), dict)), "")


def _inner(text: str) -> tuple[object, str | None]:
    """Arguments that were given as JSON in a string."""
    try:
        return loads(text), text
    except ValueError:
        pass
    try:
        return repaired(text.strip(), may_close=False), None
    except ValueError as error:
        raise Fault(f"the arguments can't be read: {error}") from error


def _object(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _simplified(name: str) -> str:
    return "".join(name.split()).casefold()
