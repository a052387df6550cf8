"""JSON Schemas in the forms that Moonshot takes."""

from typing import Any

import jsonschema_rs
import pytest

from app.providers.moonshot_schema import moonshot_schema

VALUES: list[object] = [
    "x",
    "zz",
    "",
    1,
    1.5,
    -2,
    True,
    None,
    [],
    ["x"],
    [1],
    {},
    {"a": 1},
    {"a": "x"},
    {"b": 2, "a": 1},
]


def _of_property(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"p": schema}, "$defs": {"D": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        pytest.param(
            {"type": "string", "anyOf": [{"pattern": "x"}, {"type": "string", "minLength": 2}], "description": "d"},
            {"description": "d", "anyOf": [{"pattern": "x", "type": "string"}, {"type": "string", "minLength": 2}]},
            id="type next to anyOf",
        ),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            {
                "anyOf": [
                    {"required": ["a"], "properties": {"a": {"type": "integer"}}, "type": "object"},
                    {"required": ["b"], "properties": {"a": {"type": "integer"}}, "type": "object"},
                ]
            },
            id="properties next to anyOf",
        ),
        pytest.param(
            {"type": "number", "anyOf": [{"type": "integer"}, {"maximum": 0}]},
            {"anyOf": [{"type": "integer"}, {"maximum": 0, "type": "number"}]},
            id="narrower types",
        ),
        pytest.param(
            {"$ref": "#/$defs/D", "description": "d"},
            {"description": "d", "anyOf": [{"$ref": "#/$defs/D"}]},
            id="a description next to $ref",
        ),
        pytest.param({"enum": ["x", "y"]}, {"type": "string", "enum": ["x", "y"]}, id="an enum without a type"),
        pytest.param({"const": 1}, {"type": "integer", "const": 1}, id="a constant without a type"),
        pytest.param(
            {"type": "array", "items": {"anyOf": [{"enum": ["x"]}, {"type": "null"}]}},
            {"type": "array", "items": {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "null"}]}},
            id="deep inside",
        ),
    ],
)
def test_forms_that_moonshot_refuses_are_written_otherwise(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """They come to mean the same: each value fits either both or neither."""
    before, after = _of_property(given), moonshot_schema(_of_property(given))
    assert after == _of_property(sent)
    old, new = jsonschema_rs.validator_for(before), jsonschema_rs.validator_for(dict(after))
    for value in VALUES:
        assert old.is_valid({"p": value}) == new.is_valid({"p": value}), value


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"description": "anything"},
        {"type": "string"},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"$ref": "#/$defs/D"},
        {"$ref": "#/$defs/D", "minLength": 2},
        {"type": "string", "anyOf": [{"type": "number"}, {"minLength": 1}]},
        {"type": "string", "anyOf": [{"$ref": "#/$defs/D"}]},
        {"type": "object", "additionalProperties": False, "anyOf": [{"required": ["a"]}]},
        {"type": "string", "minLength": 1, "anyOf": [{"minLength": 2}]},
        {"enum": ["x", 1]},
        {"enum": [0, False]},
        {"anyOf": "nonsense", "type": "string"},
        {"properties": 5, "type": "object"},
        {"default": {"$ref": "x", "description": "d"}, "type": "object"},
    ],
)
def test_what_is_right_or_can_t_be_put_otherwise_stays(schema: dict[str, Any]) -> None:
    """The very same object is sent then."""
    document = _of_property(schema)
    assert moonshot_schema(document) is document


@pytest.mark.parametrize(
    ("given", "kind"), [({"properties": {"a": {"type": "string"}}}, "object"), ({"items": {"type": "string"}}, "array")]
)
def test_a_type_that_goes_without_saying_is_said(given: dict[str, Any], kind: str) -> None:
    """Whoever describes properties means an object."""
    assert moonshot_schema(_of_property(given)) == _of_property({"type": kind, **given})


def test_the_root_keeps_its_type() -> None:
    """The arguments of a tool are an object, also where alternatives stand beside."""
    schema = {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert moonshot_schema(schema)["type"] == "object"


def test_no_depth_is_too_much() -> None:
    """A schema that is made to stall or break the process is sent as it came, from some depth on."""
    schema: dict[str, Any] = {"enum": ["x"]}
    for _ in range(5000):
        schema = {"type": "object", "properties": {"p": schema}}
    assert moonshot_schema(schema) is schema


def test_a_schema_does_not_multiply() -> None:
    """What holds for all of many alternatives is written into each of them only while it stays a schema of its size."""
    common = {"type": "string", "pattern": "x" * 10_000}
    many = _of_property({**common, "anyOf": [{"minLength": number} for number in range(1000)]})
    assert moonshot_schema(many) is many
    few = _of_property({**common, "anyOf": [{"minLength": 1}, {"minLength": 2}]})
    assert moonshot_schema(few) == _of_property({"anyOf": [{**common, "minLength": 1}, {**common, "minLength": 2}]})
