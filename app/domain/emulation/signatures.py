"""Writes a tool as one line, such as `get_weather(city: string, unit?: "c"|"f") - Current weather`.

Types are written as in TypeScript, which models read well. A parameter's description and limits follow as a comment.
Parts of the schema that are referred to more than once, or that refer to themselves, get their own `type` line.
What can't be written like this is added as JSON Schema, so that no constraint is lost.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence

from app.domain.chat import Tool
from app.domain.emulation.jsontext import dumps
from app.domain.emulation.schema_graph import resolve

# If there is only one reference to such a part, it is written in place: in a cycle there would be a second one.
_DEFINITION = re.compile(r"#/(?:\$defs|definitions)/[^/]+")
# Beyond this depth a part is named instead: it may itself be as deep as a schema is allowed to be.
_DEEPEST_IN_PLACE = 15
_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_NOT_IN_A_NAME = re.compile(r"\W+", re.ASCII)
_SIMPLE = frozenset({"string", "number", "integer", "boolean", "null"})
_LIMITS = {
    "format": "{}",
    "pattern": "/{}/",
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} members",
    "maxProperties": "at most {} members",
}
# Written as types, or without influence on what is valid.
_EXPRESSED = frozenset(_LIMITS) | {
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems"),
    *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "description", "title", "default", "uniqueItems"),
    *("$schema", "$id", "$comment", "$anchor", "examples", "example", "deprecated", "readOnly", "writeOnly", "strict"),
}
# What needs no remark, besides.
_UNREMARKED = _EXPRESSED - _LIMITS.keys() - {"description", "uniqueItems", "default"}
_COMBINING = frozenset({"anyOf", "oneOf", "allOf", "$ref"})
_OBJECT_WORDS = frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"})
_ARRAY_WORDS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"})


def signatures(tools: Sequence[Tool]) -> str:
    """The tools, one line each, after one line for each named type."""
    types, lines = written(tools)
    return "\n".join([*types, *lines])


def written(tools: Sequence[Tool]) -> tuple[list[str], list[str]]:
    """The lines of the named types, and those of the tools."""
    types = _Types()
    lines: list[str] = []
    for tool in tools:
        number = len(types)
        try:
            arguments = _Writer(tool, types).arguments()
        except _Inexpressible:
            types.keep(number)
            arguments = f"JSON Schema {dumps(tool.parameters)}"
        lines.append(f"{tool.name}({arguments}){_purpose(tool)}")
    return list(types.lines()), lines


def _purpose(tool: Tool) -> str:
    purpose = inspect.cleandoc(tool.description or str(tool.parameters.get("description") or "")).strip()
    return f" - {purpose}" if purpose else ""


class _Inexpressible(Exception):
    """A schema has references that types can't express."""


class _Types:
    """The named types of all tools. Each name is used once."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def keep(self, number: int) -> None:
        """Forget all names but the first so many."""
        while len(self._bodies) > number:
            self._bodies.popitem()

    def lines(self) -> Iterator[str]:
        return (f"type {name} = {body}" for name, body in self._bodies.items())

    def free(self, wanted: str) -> str:
        """Take a free name."""
        base = _NOT_IN_A_NAME.sub("_", wanted).strip("_") or "Type"
        name, number = base, self._numbers.get(base, 1)
        while name in self._bodies:
            number += 1
            name = f"{base}{number}"
        self._numbers[base] = number
        self._bodies[name] = ""  # taken while its body is written
        return name

    def define(self, name: str, body: str) -> None:
        self._bodies[name] = body


class _Writer:
    """Writes the types of one tool's schema."""

    def __init__(self, tool: Tool, types: _Types) -> None:
        self._root = tool.parameters
        self._own_name = f"{tool.name}_arguments"
        self._types = types
        self._names: dict[int, str] = {}
        self._shared = _shared(self._root)
        self._unwritten: list[tuple[str, object]] = []
        self._depth = 0

    def arguments(self) -> str:
        """What stands between the parentheses."""
        text = self._arguments()
        while self._unwritten:
            name, target = self._unwritten.pop()
            self._types.define(name, self._type(target))
        return text

    def _arguments(self) -> str:
        root = self._root
        if "#" in self._shared:
            return self._named("#")
        extra = root.get("additionalProperties", False)
        is_plain = root.get("type", "object") == "object" and root.keys() <= _EXPRESSED - _COMBINING
        if is_plain and extra in (True, False) and (root.get("properties") or not extra):
            return ", ".join(self._members(root)) + _comment([*_limits(root)])
        return self._type({name: part for name, part in root.items() if name != "description"})

    def _type(self, schema: object, *, inner: bool = False) -> str:
        """A schema as a type, in parentheses if it is `inner` and needs them."""
        if not isinstance(schema, Mapping):
            return "never" if schema is False else "any"
        self._depth += 1
        parts = list(self._parts(schema))
        self._depth -= 1
        text = " & ".join(_bracketed(part) if len(parts) > 1 else part for part in parts) or "any"
        comment = ""
        if not schema.keys() <= _UNREMARKED:
            comment = _comment([_words(schema.get("description")), *_limits(schema), *self._rest(schema)])
        text += comment
        return f"({text})" if inner and (comment or _is_compound(text)) else text

    def _parts(self, schema: Mapping[str, object]) -> Iterator[str]:
        """The types that the value must all have."""
        if "$ref" in schema:
            yield self._reference(schema["$ref"])
        if "const" in schema:
            yield dumps(schema["const"])
        elif "enum" in schema:
            yield "|".join(map(dumps, _list(schema["enum"]))) or "never"
        elif named := self._named_types(schema):
            yield named
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                branches = [self._type(branch, inner=True) for branch in _list(schema[keyword])]
                yield "|".join(dict.fromkeys(branches))
        for part in _list(schema.get("allOf")):
            yield from [text for text in [self._type(part)] if text != "any"]

    def _named_types(self, schema: Mapping[str, object]) -> str:
        named = schema.get("type")
        if named is None:
            names = ["object"] if schema.keys() & _OBJECT_WORDS else ["array"] if schema.keys() & _ARRAY_WORDS else []
        else:
            names = [named] if isinstance(named, str) else [str(name) for name in _list(named)]
        return "|".join(self._one_type(name, schema) for name in names)

    def _one_type(self, name: str, schema: Mapping[str, object]) -> str:
        if name == "array":
            return self._array(schema)
        return name if name in _SIMPLE else self._object(schema)

    def _array(self, schema: Mapping[str, object]) -> str:
        items = schema.get("items", schema.get("additionalItems") if "prefixItems" in schema else None)
        first = _list(schema.get("prefixItems"))
        if isinstance(items, list):
            first, items = items, schema.get("additionalItems")
        rest = "any" if items is None else self._type(items, inner=True)
        if not first:
            return "[]" if items is False else f"{rest}[]"
        fixed = [self._type(item) for item in first]
        return f"[{', '.join([*fixed, *([] if items is False else [f'...{rest}[]'])])}]"

    def _object(self, schema: Mapping[str, object]) -> str:
        members = self._members(schema)
        extra = schema.get("additionalProperties")
        if isinstance(extra, Mapping):
            members.append(f"[other: string]: {self._type(extra)}")
        if not members and extra is not False:
            return "object"
        return "{" + ", ".join(members) + "}"

    def _members(self, schema: Mapping[str, object]) -> list[str]:
        properties = schema.get("properties")
        described = properties if isinstance(properties, Mapping) else {}
        required = dict.fromkeys(str(name) for name in _list(schema.get("required")))
        written = [self._member(str(name), part, str(name) in required) for name, part in described.items()]
        return written + [f"{_key(name)}: any" for name in required if name not in described]

    def _member(self, name: str, schema: object, required: bool) -> str:
        return f"{_key(name)}{'' if required else '?'}: {self._type(schema)}"

    def _reference(self, reference: object) -> str:
        target = resolve(self._root, reference)
        if target is None:
            raise _Inexpressible
        if reference in self._shared or self._depth > _DEEPEST_IN_PLACE:
            return self._named(str(reference))
        return _bracketed(self._type(target))

    def _named(self, reference: str) -> str:
        """The name of a part that is referred to. Its `type` line is written later: chains of them may be long."""
        target = resolve(self._root, reference)
        if id(target) not in self._names:
            wanted = self._own_name if reference == "#" else reference.rsplit("/", 1)[-1]
            self._names[id(target)] = name = self._types.free(wanted)
            self._unwritten.append((name, target))
        return self._names[id(target)]

    def _rest(self, schema: Mapping[str, object]) -> Iterator[str]:
        """What types can't express, as JSON Schema, and the default."""
        if schema.get("uniqueItems") is True:
            yield "no item twice"
        if not schema.keys() <= _EXPRESSED:
            rest = dumps({name: part for name, part in schema.items() if name not in _EXPRESSED})
            if '"$ref"' in rest:
                raise _Inexpressible
            yield rest
        if "default" in schema:
            yield f"default {dumps(schema['default'])}"


def _shared(root: Mapping[str, object]) -> frozenset[str]:
    """The references that occur more than once, or may be part of a cycle."""
    counts: dict[str, int] = {}
    waiting: list[object] = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            reference = part.get("$ref")
            if isinstance(reference, str):
                counts[reference] = counts.get(reference, 0) + 1
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return frozenset(name for name, count in counts.items() if count > 1 or not _DEFINITION.fullmatch(name))


def _limits(schema: Mapping[str, object]) -> Iterator[str]:
    if schema.keys().isdisjoint(_LIMITS):
        return
    for keyword, form in _LIMITS.items():
        if keyword in schema:
            limit = schema[keyword]
            yield form.format(limit if isinstance(limit, str) else dumps(limit))


def _comment(remarks: Sequence[str]) -> str:
    text = ", ".join(remark for remark in remarks if remark)
    return f" /* {text.replace('*/', '* /')} */" if text else ""


def _words(description: object) -> str:
    return " ".join(description.split()) if isinstance(description, str) else ""


def _key(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else dumps(name)


def _is_compound(text: str) -> bool:
    return "|" in text or " & " in text


def _bracketed(text: str) -> str:
    return f"({text})" if _is_compound(text) else text


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
