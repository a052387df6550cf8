import pytest

from app.domain.emulation.coercion import coerced
from app.domain.emulation.schema import SchemaCheck, check_schema
from app.domain.errors import InvalidRequest

_PARAM = "tools[0].function.parameters"


def _doubling(levels: int) -> dict[str, object]:
    """A schema of a few hundred characters that applies 2 ** levels times to the same value."""
    definitions: dict[str, object] = {"d0": {"type": "integer"}}
    for level in range(1, levels):
        reference = {"$ref": f"#/$defs/d{level - 1}"}
        definitions[f"d{level}"] = {"anyOf": [reference, reference]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{levels - 1}"}


def _nested(levels: int, inner: object, name: str = "a") -> object:
    for _ in range(levels):
        inner = {name: inner}
    return inner


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "text"}, '"text" is not valid'),
        ({"properties": {"a": {"type": "object", "required": "b"}}}, "array"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "Retrieval is disabled"),
        ({"$ref": "file:///etc/hostname"}, "Retrieval is disabled"),
        ({"$id": "http://127.0.0.1:9/a", "$ref": "b"}, "Retrieval is disabled"),
        ({"$schema": "http://127.0.0.1:9/schema"}, "Unknown meta-schema"),
        ({"$ref": "#/$defs/None"}, "does not exist"),
        ({"$ref": "#"}, "refers to itself endlessly"),
        ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, "refers to itself endlessly"),
        (_doubling(30), "too many alternatives"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(((a{1,1000}){1,1000}){1,1000})"}, "regex"),
        (_nested(70, {}, "not"), "nested at most 60 levels"),
        ({"enum": [0] * 30_000}, "at most 20000 values"),
        (
            {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5000)}, "$ref": "#/$defs/d0"},
            "chain of references is too long",
        ),
        ({"const": "\ud800"}, "not a usable JSON Schema"),
    ],
)
def test_a_schema_that_can_not_work_is_refused(schema: dict[str, object], why: str) -> None:
    """Invalid, endless and outsized schemas are the client's fault; none is fetched from anywhere."""
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema, _PARAM)
    assert caught.value.param == _PARAM
    assert caught.value.message.startswith(_PARAM)
    assert why in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"a": {"$anchor": "x"}}, "$ref": "#x"},
        {"properties": {"kids": {"items": {"$ref": "#"}}}},
        {"x-vendor": 1, "properties": {"a": {"pattern": "^(?=a)\\w+$", "nullable": True}}},
    ],
)
def test_usable_schemas_pass(schema: dict[str, object]) -> None:
    """Any draft, references within the schema, recursion and unknown keywords are fine."""
    check_schema(schema, _PARAM, of_object=True)


def test_a_tool_takes_an_object() -> None:
    """A schema for arguments that can never be an object is refused."""
    with pytest.raises(InvalidRequest, match='must have "type": "object"'):
        check_schema({"type": "array"}, _PARAM, of_object=True)


def test_faults_are_told_with_their_places() -> None:
    """What is wrong is said in at most three short phrases."""
    schema = {"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]}
    faults = SchemaCheck(schema).faults({"a": [1, "x" * 500]})
    assert any(fault.startswith("a[1]: ") for fault in faults)
    assert '"b" is a required property' in faults
    assert all(len(fault) < 200 for fault in faults)
    assert len(SchemaCheck({"items": {"type": "null"}}).faults([0] * 9)) == 3


def test_halves_of_surrogate_pairs_are_characters_like_any_other() -> None:
    """Strings that can't be encoded are checked, not refused."""
    check = SchemaCheck({"properties": {"\u1234": {}}, "additionalProperties": {"maxLength": 1}})
    assert check.faults({"\ud800": "\udfff"}) == []
    assert check.faults({"\ud800": "\udfff\ud800"})


def test_a_pattern_can_not_hold_the_process_up() -> None:
    """A pattern that would backtrack for ages ends as not matching."""
    for pattern in ("^(a+)+$", "^(?=a)(a|aa)+\\1b$"):
        assert SchemaCheck({"pattern": pattern}).faults("a" * 5000 + "c")


def test_a_value_made_to_hold_the_process_up_is_not_looked_at() -> None:
    """Alternatives that double with each level of nesting are allowed as deep as they can be checked."""
    again = {"properties": {"a": {"$ref": "#/$defs/d"}}, "type": "object"}
    check = SchemaCheck({"$defs": {"d": {"anyOf": [again, again, {"type": "integer"}]}}, "$ref": "#/$defs/d"})
    assert check.faults(_nested(6, 1)) == []
    assert check.faults(_nested(6, "x"))
    assert check.faults(_nested(200, "x")) == ["it is nested too deeply for this schema"]
    # Without alternatives there is no such bound.
    assert SchemaCheck({"properties": {"a": {"$ref": "#"}}}).faults(_nested(400, 1)) == []


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, "-12", -12),
        ({"type": "integer"}, "012", "012"),
        ({"type": "integer"}, "1.5", "1.5"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "yes", "yes"),
        ({"type": "array"}, "[1]", [1]),
        ({"type": "string"}, 5, "5"),
        ({"type": "string"}, True, True),
        ({"type": ["string", "integer"]}, "5", "5"),
        ({"enum": [1, 2]}, "2", 2),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "5", 5),
        ({"$ref": "#/$defs/i", "$defs": {"i": {"type": "integer"}}}, "5", 5),
        ({"items": {"type": "integer"}}, ["1", 2], [1, 2]),
        ({"allOf": [{"properties": {"a": {"type": "integer"}}}]}, {"a": "1"}, {"a": 1}),
        (
            {
                "oneOf": [
                    {"properties": {"kind": {"const": "s"}, "x": {"type": "string"}}},
                    {"properties": {"kind": {"const": "i"}, "x": {"type": "integer"}}},
                ]
            },
            {"kind": "i", "x": "1"},
            {"kind": "i", "x": 1},
        ),
    ],
)
def test_only_what_says_the_same_changes_its_type(schema: dict[str, object], value: object, expected: object) -> None:
    """Numbers, booleans and lists in quotes, and numbers without, become what is asked for; nothing else does."""
    outcome = coerced(value, SchemaCheck(schema))
    assert (outcome, type(outcome)) == (expected, type(expected))
