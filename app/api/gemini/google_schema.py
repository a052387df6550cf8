"""Google's own form of schemas, a selection of OpenAPI 3.0, as JSON Schema. Pure."""

from collections.abc import Mapping

from pydantic.alias_generators import to_camel

_NO_TYPE = "TYPE_UNSPECIFIED"
# In the order of their numbers, which stand for them where protocol buffers are written as JSON.
_TYPES = (_NO_TYPE, "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")
# They hold schemas: one, a list of them, or some by their names.
_ONE, _LIST, _NAMED = frozenset({"items", "additionalProperties"}), "anyOf", frozenset({"properties", "$defs", "defs"})
# 64-bit numbers, which come as texts.
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_DROPPED = frozenset({"propertyOrdering", "nullable", "example"})
_SNAKE = frozenset(
    {"any_of", "min_items", "max_items", "min_length", "max_length", "min_properties", "max_properties"}
    | {"property_ordering", "additional_properties"}
)


def json_schema(given: Mapping[str, object]) -> dict[str, object]:
    """A schema as JSON Schema. What is no part of the form stays as it is."""
    schema: dict[str, object] = {}
    nullable = given.get("nullable") is True
    for key, value in given.items():
        name = to_camel(key) if key in _SNAKE else key
        if name not in _DROPPED and value is not None:
            schema |= _field(name, value)
    if nullable:
        _allow_null(schema)
    return schema


def _field(name: str, value: object) -> dict[str, object]:
    if name == "type" and isinstance(value, str):
        return _type(value)
    if name == "type" and isinstance(value, int) and 0 <= value < len(_TYPES):
        return _type(_TYPES[value])
    if name == "format" and value == "enum":
        return {}
    if name in _ONE and isinstance(value, Mapping):
        return {name: json_schema(value)}
    if name == _LIST and isinstance(value, list):
        return {name: [json_schema(each) if isinstance(each, Mapping) else each for each in value]}
    if name in _NAMED and isinstance(value, Mapping):
        of = {key: json_schema(each) if isinstance(each, Mapping) else each for key, each in value.items()}
        return {"$defs" if name == "defs" else name: of}
    if name == "ref" and isinstance(value, str):
        return {"$ref": value.replace("#/defs/", "#/$defs/")}
    if name in _COUNTS and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return {name: int(value)}
    return {name: value}


def _type(value: str) -> dict[str, object]:
    word = value.upper()
    if word == _NO_TYPE:
        return {}
    return {"type": word.lower() if word in _TYPES else value}


def _allow_null(schema: dict[str, object]) -> None:
    kind, choices, values = schema.get("type"), schema.get("anyOf"), schema.get("enum")
    if isinstance(kind, str) and kind != "null":
        schema["type"] = [kind, "null"]
    if isinstance(choices, list):
        schema["anyOf"] = [*choices, {"type": "null"}]
    if isinstance(values, list) and None not in values:
        schema["enum"] = [*values, None]
