"""Google's form of schemas."""

import pytest

from app.api.gemini.google_schema import json_schema


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": 6, "properties": {"n": {"type": 3}}}, {"type": "object", "properties": {"n": {"type": "integer"}}}),
        ({"type": 0, "title": "Any"}, {"title": "Any"}),
        ({"type": 99}, {"type": 99}),
        ({"type": "TYPE_UNSPECIFIED", "title": "Any"}, {"title": "Any"}),
        ({"type": "INTEGER", "nullable": True, "format": "int32"}, {"type": ["integer", "null"], "format": "int32"}),
        ({"type": "STRING", "format": "enum", "enum": ["a"]}, {"type": "string", "enum": ["a"]}),
        ({"type": "STRING", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"any_of": [{"type": "STRING"}], "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (
            {"type": "ARRAY", "items": {"type": "NUMBER"}, "max_items": "3"},
            {"type": "array", "items": {"type": "number"}, "maxItems": 3},
        ),
        (
            {
                "type": "OBJECT",
                "properties": {"type": {"type": "BOOLEAN"}},
                "propertyOrdering": ["type"],
                "required": ["type"],
            },
            {"type": "object", "properties": {"type": {"type": "boolean"}}, "required": ["type"]},
        ),
        ({"defs": {"A": {"type": "NULL"}}, "ref": "#/defs/A"}, {"$defs": {"A": {"type": "null"}}, "$ref": "#/$defs/A"}),
        (
            {"type": None, "description": "x", "x-own": 1, "minItems": "many"},
            {"description": "x", "x-own": 1, "minItems": "many"},
        ),
    ],
)
def test_a_schema_as_json_schema(given: dict[str, object], meant: dict[str, object]) -> None:
    """Types, nulls and counts are written as JSON Schema has them, at every depth; names of properties aren't types."""
    assert json_schema(given) == meant
