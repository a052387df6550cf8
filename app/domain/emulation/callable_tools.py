"""The tools that a reply may call: finds them by the names that models write, and checks arguments."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from app.domain.chat import Tool
from app.domain.emulation.coercion import coerced
from app.domain.emulation.jsontext import Fault, dumps, items, loads, members
from app.domain.emulation.repair import repaired
from app.domain.emulation.schema import SchemaCheck

_ARGUMENTS = ("arguments", "parameters", "args", "input")
# The members that a JSON object may have to be taken for a call when nothing marks it as one.
_IN_A_CALL = frozenset({"name", "id", "type", "index", *_ARGUMENTS[:2]})
_PREFIX = "functions."


class CallText(Struct, frozen=True):
    """A valid call: the tool's exact name, and its arguments as JSON."""

    name: str
    arguments: str


class CallableTools:
    """The tools that may be called in this turn."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._checks = {tool.name: SchemaCheck(tool.parameters) for tool in tools}
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
        if not isinstance(value, list):
            return [self._call(value, text)]
        if text is None:
            return [self._call(item, None) for item in value]
        return [self._call(item, part) for item, part in items(text, 0)]

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

    def is_call(self, value: object) -> bool:
        """Whether a JSON value can only be a call of these tools, or several."""
        if isinstance(value, list):
            return bool(value) and all(map(self.is_call, value))
        if not isinstance(value, dict):
            return False
        inner = value.get("function")
        if isinstance(inner, dict) and value.keys() <= {"function", "type", "id", "index"}:
            return self.is_call(inner)
        has_arguments = any(key in value for key in _ARGUMENTS[:2])
        return value.keys() <= _IN_A_CALL and has_arguments and self.name(value.get("name")) is not None

    def _call(self, value: object, text: str | None) -> CallText:
        if not isinstance(value, dict):
            raise Fault("a tool call is not a JSON object")
        texts = {} if text is None else {name: part for name, _, part in members(text, 0)}
        inner = value.get("function")
        if isinstance(inner, dict):
            return self._call(inner, texts.get("function"))
        if "name" not in value and inner is None:
            raise Fault('a tool call has no "name"')
        key = next((key for key in _ARGUMENTS if key in value), "")
        return self.call(value.get("name", inner), value.get(key), texts.get(key))

    def _checked(self, name: str, arguments: dict[str, object], text: str | None) -> CallText:
        check = self._checks[name]
        faults = check.faults(arguments)
        if faults:
            arguments, text = _object(coerced(arguments, check)), None
            if check.faults(arguments):
                raise Fault(f"the arguments of {name} don't fit ({'; '.join(faults)})")
        return CallText(name, dumps(arguments) if text is None else text)


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
