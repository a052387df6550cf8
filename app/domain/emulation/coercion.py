"""Coerces values to the type that a schema asks for: `"5"` where a number belongs, 5 where a string does.

Nothing is lost: the coerced value is written with the same characters. Where a schema offers alternatives, the first
that an object's members match is taken. The caller must check the result.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from app.domain.emulation.jsontext import loads
from app.domain.emulation.schema import Effort, SchemaCheck
from app.domain.emulation.schema_graph import extent, resolve

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,300})", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(?:\.\d{1,300})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
# A step takes some three microseconds.
_LOOKS_OF_STEP = 300
_DEEPEST = 100
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


def coerced(value: object, check: SchemaCheck, effort: Effort | None = None) -> object:
    """The value with each part as the schema asks for it; unchanged if that takes too long.

    Args:
        effort: What may still be spent on it.
    """
    coercion = _Coercion(check.schema, Effort() if effort is None else effort)
    try:
        return coercion.coerced(value, check.schema, 0)
    except _TooLong:
        return value


class _TooLong(Exception):
    """Coercion has taken too many steps, or has come to parts that are nested too deeply."""


class _Coercion:
    """Coerces one value, in a bounded number of steps."""

    def __init__(self, root: Mapping[str, object], effort: Effort) -> None:
        self._root = root
        self._effort = effort
        self._types: dict[int, list[str]] = {}

    def coerced(self, value: object, schema: object, depth: int) -> object:
        self._spend(1)
        if depth > _DEEPEST:
            raise _TooLong
        if not isinstance(schema, Mapping):
            return value
        for part in self._parts(value, schema):
            value = self.coerced(value, part, depth + 1)
        value = _converted(value, self._types_of(schema))
        if isinstance(value, dict):
            return {
                name: self.coerced(member, _member_schema(schema, name), depth + 1) for name, member in value.items()
            }
        if isinstance(value, list):
            return [self.coerced(item, _item_schema(schema, index), depth + 1) for index, item in enumerate(value)]
        return value

    def _spend(self, steps: int) -> None:
        if not self._effort.spend(steps * _LOOKS_OF_STEP):
            raise _TooLong

    def _types_of(self, schema: object) -> list[str]:
        """The types that a schema of this check names; none if it allows any."""
        known = self._types.get(id(schema))
        if known is None:
            known = self._types[id(schema)] = _types(schema)
        return known

    def _converts(self, value: object, branch: object) -> bool:
        types = self._types_of(branch)
        return any(_is(_converted(value, types), name) for name in types)

    def _parts(self, value: object, schema: Mapping[str, object]) -> list[object]:
        """The further schemas that the value must fit."""
        parts = [resolve(self._root, schema["$ref"])] if "$ref" in schema else []
        parts += _list(schema.get("allOf"))
        for keyword in ("anyOf", "oneOf"):
            branches = _list(schema.get(keyword))
            if branches:
                fitting = (branch for branch in branches if self._matches(value, branch))
                others = (branch for branch in branches if self._converts(value, self._resolved(branch)))
                parts.append(next(fitting, next(others, None)))
        return parts

    def _matches(self, value: object, branch: object) -> bool:
        """Whether a branch allows the value's type and, of an object, its set of members."""
        self._spend(1)
        branch = self._resolved(branch)
        types = self._types_of(branch)
        if types and not any(_is(value, name) for name in types):
            return False
        if not isinstance(value, dict) or not isinstance(branch, Mapping):
            return True
        required = _list(branch.get("required"))
        self._spend(len(value) + len(required) // 10)
        if any(name not in value for name in required):
            return False
        return all(self._may_be(member, _member_schema(branch, name)) for name, member in value.items())

    def _may_be(self, value: object, schema: object) -> bool:
        schema = self._resolved(schema)
        if not isinstance(schema, Mapping):
            return schema is not False
        if "const" in schema:
            return bool(value == schema["const"])
        allowed = _list(schema.get("enum"))
        self._spend(len(allowed) // 10)
        return "enum" not in schema or value in allowed

    def _resolved(self, schema: object) -> object:
        if isinstance(schema, Mapping) and "$ref" in schema:
            return resolve(self._root, schema["$ref"])
        return schema


def _types(schema: object) -> list[str]:
    """The types that a schema names; none if it allows any."""
    if not isinstance(schema, Mapping):
        return []
    named = schema.get("type")
    if named is not None:
        return [named] if isinstance(named, str) else [str(name) for name in _list(named)]
    examples = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    return sorted({_type(example) for example in examples})


def _converted(value: object, types: list[str]) -> object:
    if not types or any(_is(value, name) for name in types):
        return value
    for name in types:
        other = _as(value, name)
        if other is not None:
            return other
    return value


def _as(value: object, name: str) -> object:
    """The value as one of the named type; None if it can't be written as one."""
    if isinstance(value, str):
        return _read(value.strip(), name)
    # Only of an integer is it known how it was written.
    if name == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _read(text: str, name: str) -> object:
    if name == "boolean":
        return _BOOLEANS.get(text)
    if name in ("integer", "number") and _INTEGER.fullmatch(text):
        return int(text)
    if name == "number" and _NUMBER.fullmatch(text):
        return Decimal(text)
    if (name, text[:1]) not in (("object", "{"), ("array", "[")):
        return None
    try:
        value = loads(text)
    except ValueError:
        return None
    return value if extent(value)[0] <= _DEEPEST else None


def _is(value: object, name: str) -> bool:
    kind = _type(value)
    return kind == name or (kind == "integer" and name == "number") or (name == "integer" and _is_whole(value))


def _type(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", Decimal: "number", str: "string", type(None): "null"}
    return kinds.get(type(value)) or ("object" if isinstance(value, Mapping) else "array")


def _is_whole(value: object) -> bool:
    return isinstance(value, Decimal) and abs(value.adjusted()) < 400 and value == value.to_integral_value()


def _member_schema(schema: Mapping[str, object], name: str) -> object:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    return schema.get("additionalProperties")


def _item_schema(schema: Mapping[str, object], index: int) -> object:
    first = _list(schema.get("prefixItems")) or _list(schema.get("items"))
    if index < len(first):
        return first[index]
    items = schema.get("items")
    return items if isinstance(items, Mapping) else schema.get("additionalItems")


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
