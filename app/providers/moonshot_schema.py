"""JSON Schemas in the forms that Moonshot's API takes ("Moonshot flavored JSON Schema"). Pure.

It wants a `type` in every schema, but in the alternatives instead of next to an `anyOf`, and nothing next to a `$ref`.
What can't be put so without changing its meaning is left as it is.
"""

import sys
from collections.abc import Mapping

Schema = Mapping[str, object]

_DEEPEST = 60
_ROOM, _MOST_TIMES = 20_000, 2
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ALONE = ("items", "additionalProperties", "not")
# Keywords that say something to people only.
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
)
# Keywords whose meaning depends on what stands next to them, so that they can't be moved.
_BOUND_TO_NEIGHBOURS = frozenset({"additionalProperties", "unevaluatedProperties", "additionalItems"})
_OTHER_BRANCHING = frozenset({"$ref", "$defs", "definitions", "oneOf", "allOf", "not", "if", "then", "else"})


def moonshot_schema(schema: Schema) -> Schema:
    """The same schema in Moonshot's forms; the very same object if it has them already."""
    # The root stays an object with a type, as the arguments of a tool must be.
    normal = _inside(schema, 0)
    return schema if normal is not schema and _is_far_larger(normal, schema) else normal


def _is_far_larger(normal: Schema, schema: Schema) -> bool:
    """Whether what holds for all of many alternatives, written into each of them, makes too much of a schema."""
    most = _ROOM + _MOST_TIMES * _size(schema, sys.maxsize)
    return _size(normal, most) > most


def _size(schema: Schema, most: int) -> int:
    """The characters of a schema, roughly; no longer counted beyond so many."""
    size = 0
    waiting: list[object] = [schema]
    while waiting and size <= most:
        part = waiting.pop()
        size += len(part) if isinstance(part, str) else 1
        if isinstance(part, dict):
            size += sum(map(len, part))
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return size


def _normal(schema: Schema, depth: int) -> Schema:
    schema = _inside(schema, depth)
    if "$ref" in schema:
        return _lone_reference(schema)
    if "anyOf" in schema:
        return _typed_alternatives(schema) if "type" in schema else schema
    if "type" not in schema and (kind := _implied_type(schema)):
        return {"type": kind, **schema}
    return schema


def _inside(schema: Schema, depth: int) -> Schema:
    """The schema with normal schemas inside it."""
    if depth > _DEEPEST:
        return schema
    changed: dict[str, object] = {}
    for key, value in schema.items():
        new = value
        if key in _BY_NAME and isinstance(value, Mapping):
            parts = {name: _normal_or_other(part, depth) for name, part in value.items()}
            new = parts if any(parts[name] is not part for name, part in value.items()) else value
        elif isinstance(value, list) and (key in _IN_LISTS or key == "items"):
            row = [_normal_or_other(part, depth) for part in value]
            new = row if any(ours is not theirs for ours, theirs in zip(row, value, strict=True)) else value
        elif key in _ALONE:
            new = _normal_or_other(value, depth)
        if new is not value:
            changed[key] = new
    return {**schema, **changed} if changed else schema


def _normal_or_other(value: object, depth: int) -> object:
    return _normal(value, depth + 1) if isinstance(value, Mapping) else value


def _lone_reference(schema: Schema) -> Schema:
    """A description next to a reference goes next to an alternative that has the reference to itself."""
    if len(schema) == 1 or not schema.keys() - {"$ref"} <= _ANNOTATIONS:
        return schema
    return {**{key: value for key, value in schema.items() if key != "$ref"}, "anyOf": [{"$ref": schema["$ref"]}]}


def _typed_alternatives(schema: Schema) -> Schema:
    """The type, and whatever else holds for all alternatives, goes into each of them."""
    alternatives, kind = schema["anyOf"], schema["type"]
    if not isinstance(alternatives, list) or not isinstance(kind, str) or schema.keys() & _OTHER_BRANCHING:
        return schema
    common = {key: value for key, value in schema.items() if key not in _ANNOTATIONS and key not in ("anyOf", "type")}
    if common.keys() & _BOUND_TO_NEIGHBOURS:
        return schema
    typed: list[Schema] = []
    for one in alternatives:
        if not isinstance(one, Mapping) or one.keys() & (_OTHER_BRANCHING | common.keys() | {"anyOf"}):
            return schema
        if common and one.keys() & _BOUND_TO_NEIGHBOURS:
            return schema
        own = one.get("type", kind)
        if own != kind and (own, kind) != ("integer", "number"):
            return schema
        typed.append({**one, **common, "type": own})
    return {**{key: value for key, value in schema.items() if key in _ANNOTATIONS}, "anyOf": typed}


def _implied_type(schema: Schema) -> str | None:
    """The type of all values that fit, if the schema leaves no doubt about it."""
    if "properties" in schema:
        return "object"
    if "items" in schema:
        return "array"
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    kinds = {_type_of(value) for value in values} if isinstance(values, list) else set()
    return kinds.pop() if len(kinds) == 1 else None


def _type_of(value: object) -> str | None:
    rows = ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array"))
    return "null" if value is None else next((name for kind, name in rows if isinstance(value, kind)), None)
