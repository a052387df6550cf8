import pytest

from app.domain.chat import Tool
from app.domain.emulation.signatures import signatures

_NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "required": ["value"],
}


def _properties(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "signature"),
    [
        ({}, "f()"),
        ({"type": "object"}, "f()"),
        ({"type": "object", "additionalProperties": True}, "f(object)"),
        (_properties(a={"type": "string"}) | {"required": ["a", "b"]}, "f(a: string, b: any)"),
        (_properties(a={"enum": ["c", "f", 1, None]}), 'f(a?: "c"|"f"|1|null)'),
        (_properties(a={"const": "x"}), 'f(a?: "x")'),
        (_properties(a={"type": ["string", "null"]}), "f(a?: string|null)"),
        (_properties(a=True, b=False), "f(a?: any, b?: never)"),
        (_properties(a={"type": "array", "items": {"type": "string"}}), "f(a?: string[])"),
        (_properties(a={"type": "array", "items": {"enum": ["x", "y"]}}), 'f(a?: ("x"|"y")[])'),
        (_properties(a={"type": "array"}), "f(a?: any[])"),
        (
            _properties(a={"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}),
            "f(a?: [string, integer])",
        ),
        (_properties(a=_properties(b={"type": "number"}) | {"required": ["b"]}), "f(a?: {b: number})"),
        (_properties(a={"additionalProperties": {"type": "integer"}}), "f(a?: {[other: string]: integer})"),
        (_properties(a={"anyOf": [{"type": "string"}, {"type": "integer"}]}), "f(a?: string|integer)"),
        (_properties(a={"oneOf": [{"type": "string"}, {"type": "null"}]}), "f(a?: string|null)"),
        ({"anyOf": [_properties(a=True), _properties(b=True)]}, "f({a?: any}|{b?: any})"),
        (_properties(**{"a-b": {"type": "string"}}), 'f("a-b"?: string)'),
        (_properties(a={"type": "string", "description": " The\n city. "}), "f(a?: string /* The city. */)"),
        (_properties(a={"type": "string", "description": "*/ b"}), "f(a?: string /* * / b */)"),
        (_properties(a={"type": "string", "default": "x"}), 'f(a?: string /* default "x" */)'),
        (
            _properties(a={"type": "array", "items": {"type": "string", "description": "A path."}}),
            "f(a?: (string /* A path. */)[])",
        ),
        (
            _properties(a={"type": "integer", "minimum": 0, "exclusiveMaximum": 10}),
            "f(a?: integer /* ≥ 0, < 10 */)",
        ),
        (
            _properties(a={"type": "string", "pattern": "^a$", "maxLength": 5, "format": "date"}),
            "f(a?: string /* date, /^a$/, at most 5 characters */)",
        ),
        (
            _properties(a={"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}),
            "f(a?: string[] /* at least 1 items, no item twice */)",
        ),
        (_properties(a={"not": {"type": "string"}}), 'f(a?: any /* {"not":{"type":"string"}} */)'),
        (
            _properties(a={"$ref": "#/$defs/P"}) | {"$defs": {"P": {"type": "string"}}},
            "f(a?: string)",
        ),
        (
            _properties(a={"$ref": "#/definitions/P"}, b={"$ref": "#/definitions/P"})
            | {"definitions": {"P": _properties(x=True)}},
            "type P = {x?: any}\nf(a?: P, b?: P)",
        ),
        (
            _properties(n={"$ref": "#/$defs/Node"}) | {"$defs": {"Node": _NODE}},
            "type Node = {value: integer, children?: Node[]}\nf(n?: Node)",
        ),
        (
            _properties(kids={"type": "array", "items": {"$ref": "#"}}),
            "type f_arguments = {kids?: f_arguments[]}\nf(f_arguments)",
        ),
        (
            _properties(a={"allOf": [{"$ref": "#/$defs/P"}, {"type": "string"}]}) | {"$defs": {"P": {"minLength": 1}}},
            "f(a?: any /* at least 1 characters */ & string)",
        ),
        (
            _properties(a=True) | {"dependentRequired": {"a": ["b"]}},
            'f({a?: any} /* {"dependentRequired":{"a":["b"]}} */)',
        ),
        (
            _properties(a={"$ref": "#here"}) | {"$defs": {"P": {"$anchor": "here"}}},
            'f(JSON Schema {"type":"object","properties":{"a":{"$ref":"#here"}},"$defs":{"P":{"$anchor":"here"}}})',
        ),
        (
            _properties(a={"not": {"$ref": "#/$defs/P"}}) | {"$defs": {"P": {}}},
            'f(JSON Schema {"type":"object","properties":{"a":{"not":{"$ref":"#/$defs/P"}}},"$defs":{"P":{}}})',
        ),
    ],
)
def test_a_schema_as_a_signature(schema: dict[str, object], signature: str) -> None:
    """Names, types, limits and what must be there are said in few characters; what can't be said is left as JSON."""
    assert signatures([Tool("f", "", schema)]) == signature


def test_tools_may_name_different_types_alike() -> None:
    """A name that two tools give to different types is made two names."""
    schema = _properties(n={"$ref": "#/$defs/Node"}) | {"$defs": {"Node": _NODE}}
    lines = signatures([Tool("f", "One.", schema), Tool("g", "Two.\n  More.", schema)]).split("\n")
    assert lines[0].startswith("type Node = ")
    assert lines[1].startswith("type Node2 = ")
    assert lines[2:] == ["f(n?: Node) - One.", "g(n?: Node2) - Two.", "More."]


def test_long_chains_of_references_are_written_as_they_are_followed() -> None:
    """Each type refers to the next by its name, however many there are, and however deep they are."""
    parts: dict[str, object] = {"d30": {"type": "integer"}}
    for number in range(30):
        part: object = {"$ref": f"#/$defs/d{number + 1}"}
        for _ in range(27):
            part = _properties(a=part)
        parts[f"d{number}"] = part
    text = signatures([Tool("f", "", _properties(a={"$ref": "#/$defs/d0"}) | {"$defs": parts})])
    assert text.count("type d") > 10
    assert "type d30 = integer" in text
    assert "$ref" not in text


def test_names_of_types_that_are_given_up_again_are_free() -> None:
    """A tool that is left as JSON leaves no types behind."""
    schema = _properties(n={"$ref": "#/$defs/Node"}) | {"$defs": {"Node": _NODE}}
    bad = _properties(n={"$ref": "#/$defs/Node"}, m={"$ref": "#here"}) | {"$defs": {"Node": _NODE}}
    lines = signatures([Tool("f", "", schema), Tool("g", "", bad), Tool("h", "", schema)]).split("\n")
    assert [line.partition(" = ")[0] for line in lines[:2]] == ["type Node", lines[1].partition(" = ")[0]]
    assert sum(line.startswith("type ") for line in lines) == 2
