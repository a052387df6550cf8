from collections.abc import Callable

import pytest

from app.domain.chat import PLAIN_TEXT, OutputFormat, Tool
from app.domain.emulation.coercion import coerced
from app.domain.emulation.schema import Effort, SchemaCheck, SchemaCompiler, check_schema
from app.domain.errors import InvalidRequest

_PARAM = "tools[0].function.parameters"


def _doubling(levels: int, *, anchored: bool = False) -> dict[str, object]:
    """A schema of a few hundred characters that applies 2 ** levels times to the same value."""
    definitions: dict[str, object] = {"d0": {"$anchor": "d0", "type": "integer"}}
    for level in range(1, levels):
        reference = {"$ref": f"#d{level - 1}" if anchored else f"#/$defs/d{level - 1}"}
        definitions[f"d{level}"] = {"$anchor": f"d{level}", "anyOf": [reference, reference]}
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
        ({"$schema": "http://127.0.0.1:9/schema", "$id": "a b", "type": "text"}, '"text" is not valid'),
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
        (_doubling(30, anchored=True), "too many alternatives"),
        ({"$anchor": "x", "anyOf": [{"$ref": "#x"}]}, "refers to itself endlessly"),
        ({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]}, "refers to itself endlessly"),
        ({"$id": "http://127.0.0.1:9/a/b", "anyOf": [{"$ref": "b"}]}, "refers to itself endlessly"),
        ({"$id": "http://127.0.0.1:9/a/b", "anyOf": [{"$ref": "../a/%62#/anyOf/0"}]}, "refers to itself endlessly"),
        (
            {
                "properties": {
                    "a": {"$id": "x", "$defs": {"b": {"anyOf": [{"$ref": "#/$defs/b"}]}}, "$ref": "#/$defs/b"}
                }
            },
            "refers to itself endlessly",
        ),
        (
            {
                "$defs": {f"d{n}": {"$id": f"http://127.0.0.1:9/{n}"} for n in range(2000)},
                "anyOf": [{"$ref": f"#/$defs/d{n}"} for n in range(2000)],
            },
            "too many places",
        ),
        ({"properties": {f"p{n}": {"pattern": f"a{{9000}}{n}"} for n in range(300)}}, "at most 80000 states"),
        ({"patternProperties": {"[" * 30_000: {}}}, "at most 20000 characters"),
        ({"description": "x" * 5_000_000}, "at most 4000000 bytes"),
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
        {"$id": "T0", "type": "object", "properties": {"nodes": {"items": {"$ref": "T0"}}}},
        {"$defs": {"a": {"$id": "http://127.0.0.1:9/a", "$ref": "#/$defs/b", "$defs": {"b": {}}}}, "$ref": "#/$defs/a"},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/$defs/c"}}, "$defs": {"c": {}}},
        {"x-vendor": 1, "properties": {"a": {"pattern": "^(?=a)\\w+$", "nullable": True}}},
    ],
)
def test_usable_schemas_pass(schema: dict[str, object]) -> None:
    """Any draft, references within the schema, recursion and unknown keywords are fine."""
    check_schema(schema, _PARAM, of_object=True)


@pytest.mark.parametrize(
    "naming",
    [
        {"$id": "Output Format"},
        {"$id": "#root", "$schema": "http://json-schema.org/draft-03/schema#"},
        {"$schema": "http://127.0.0.1:9/schema"},
        {"properties": {"id": {"$id": "#/properties/id", "const": {"$id": "a b"}}}},
        {
            "properties": {"default": {"$ref": "#/$defs/List<int>"}},
            "$defs": {"List<int>": {"items": {"type": "integer"}}},
        },
        {"properties": {"default": {"$ref": "#/$defs/列表"}}, "$defs": {"列表": {"items": {"type": "integer"}}}},
    ],
    ids=str,
)
def test_names_and_addresses_that_are_no_uris_are_taken_as_they_are_meant(naming: dict[str, object]) -> None:
    """They come from names that programs give to their types; nothing is fetched, and everything else counts."""
    check = SchemaCheck({"type": "object", "required": ["a"], **naming})
    assert check.faults({"a": 1, "id": {"$id": "a b"}, "default": [1]}) == []
    assert check.faults({}) == ['"a" is a required property']
    if "$defs" in naming:
        assert len(check.faults({"a": 1, "default": ["1"]})) == 1


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


def _tool(schema: dict[str, object], index: int = 0) -> Tool:
    return Tool(f"t{index}", "", {"type": "object", **schema}, place=f"tools[{index}].function.parameters")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (lambda _: {"properties": {f"p{n}": {} for n in range(3000)}}, "at most 20000 values"),
        (lambda _: {"description": "x" * 600_000}, "at most 4000000 bytes"),
        (lambda _: {"pattern": "a{12000}"}, "at most 80000 states"),
        (lambda index: {"pattern": "(?:)" * 800 + str(index)}, "at most 20000 characters"),
    ],
)
def test_all_schemas_of_a_request_share_one_budget(schema: Callable[[int], dict[str, object]], why: str) -> None:
    """Each of ten is fine by itself; together they are refused where they become too much, every time."""
    compiler = SchemaCompiler()
    compiler.checks((_tool(schema(0)),), PLAIN_TEXT)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=why) as caught:
            compiler.checks([_tool(schema(index), index) for index in range(10)], PLAIN_TEXT)
        assert str(caught.value.param).startswith("tools[")


def test_the_schema_of_the_answer_is_in_the_same_budget() -> None:
    """Tools may not use up the budget twice over."""
    answer = OutputFormat("json_schema", {"pattern": "a{50000}"}, place="response_format")
    with pytest.raises(InvalidRequest, match="states") as caught:
        SchemaCompiler().checks((_tool({"pattern": "a{50000}"}),), answer)
    assert caught.value.param == "response_format"


def test_a_schema_is_compiled_once() -> None:
    """The next request with an equal schema gets what was compiled for the last one; another schema does not."""
    compiler = SchemaCompiler()
    first = compiler.checks((_tool({"properties": {"a": {}}}),), PLAIN_TEXT)
    again = compiler.checks((_tool({"properties": {"a": {}}}),), OutputFormat("json_schema", {"type": "array"}))
    other = compiler.checks((_tool({"properties": {"b": {}}}),), PLAIN_TEXT)
    assert again.tools["t0"] is first.tools["t0"]
    assert other.tools["t0"] is not first.tools["t0"]


def test_an_array_is_no_arguments_even_if_it_was_an_answer_before() -> None:
    """What was compiled for an answer isn't taken for a tool that it doesn't suit."""
    compiler = SchemaCompiler()
    compiler.checks((), OutputFormat("json_schema", {"type": "array"}))
    with pytest.raises(InvalidRequest, match='must have "type": "object"'):
        compiler.checks((Tool("t", "", {"type": "array"}),), PLAIN_TEXT)


def test_compiled_schemas_are_forgotten_when_they_take_too_much() -> None:
    """The least recently used go first, and one that is too large by itself isn't kept at all."""
    compiler = SchemaCompiler(memory=10_000)
    tools = [_tool({"minProperties": number}) for number in range(4)]
    kept = compiler.checks(tools[:1], PLAIN_TEXT).tools["t0"]
    for tool in tools:
        compiler.checks((tool,), PLAIN_TEXT)
        assert compiler.checks(tools[:1], PLAIN_TEXT).tools["t0"] is kept
    compiler.checks((_tool({"properties": {f"p{n}": {} for n in range(99)}}),), PLAIN_TEXT)
    assert compiler.checks(tools[:1], PLAIN_TEXT).tools["t0"] is not kept


def test_the_tools_of_agents_pass() -> None:
    """150 tools with patterns, references and recursion, 300 KB altogether, are within the budget."""
    words = "What this is for, and when it should be used instead of something else, in a sentence or two."
    schema: dict[str, object] = {
        "properties": {
            "email": {"type": "string", "pattern": r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"},
            "id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
            "date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
            "path": {"type": "string", "pattern": "^(/[^/]+)+$", "description": words},
            "mode": {"enum": ["read", "write", "append"], "description": words},
            "root": {"$ref": "#/$defs/Node"},
            "also": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}], "default": None, "description": words},
            **{f"option_{n}": {"type": "string", "description": words} for n in range(12)},
        },
        "required": ["email", "root"],
        "$defs": {
            "Node": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}
        },
    }
    checks = SchemaCompiler().checks([_tool(schema, index) for index in range(150)], PLAIN_TEXT)
    arguments = {"email": "a@example.org", "root": {"kids": [{"kids": []}]}, "path": "/a/b", "option_1": "x" * 100_000}
    assert checks.tools["t149"].faults(arguments) == []
    assert checks.tools["t149"].faults({**arguments, "path": "a"})


_OBJECTS: list[object] = [{"a": number} for number in range(1000)]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "[ab]*a[ab]{300}[cd]"}, "ab" * 50_000),
        ({"pattern": "(?!.*z)y"}, "a" * 20_000),
        ({"propertyNames": {"pattern": "(?!.*z)y"}}, {"a" * 20_000: 1}),
        ({"patternProperties": {f"a.*{n}": {} for n in range(500)}}, {f"aa{n}": 1 for n in range(2000)}),
        ({"items": {"enum": _OBJECTS}}, [{"a": 999}] * 2000),
        ({"contains": {"enum": _OBJECTS}}, [{"a": -1}] * 2000),
        (
            {"anyOf": [{"properties": {f"a{n}": {}}} for n in range(2000)], "unevaluatedProperties": False},
            {f"b{n}": 1 for n in range(2000)},
        ),
        ({"items": {"anyOf": [{"required": [f"a{n}"]} for n in range(2000)]}}, [{"b": 1}] * 20_000),
        ({"items": {}}, [0] * 1_000_000),
    ],
    ids=[
        *("large automaton", "look around", "names", "patternProperties", "enum of objects", "contains"),
        *("unevaluatedProperties", "alternatives", "many values"),
    ],
)
def test_a_value_that_takes_too_long_to_check_is_refused(schema: dict[str, object], value: object) -> None:
    """Patterns, comparisons and keywords that look at everything again count for what they cost."""
    assert SchemaCheck(schema).faults(value) == ["it is too large for this schema"]


def test_unevaluated_parts_within_each_other_count_double() -> None:
    """Each level goes through all below it once more."""
    schema: dict[str, object] = {"properties": {"a": {}}}
    for _ in range(16):
        schema = {"unevaluatedProperties": False, "allOf": [schema]}
    assert SchemaCheck(schema).faults({"a": 1}) == ["it is too large for this schema"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"anyOf": [{"type": "integer"}] * 1000}, "x" * 100_000),
        ({"items": {"type": "integer"}}, ["x"] * 20_000),
        ({"required": [f"a{n}" for n in range(5000)]}, {f"b{n}": 1 for n in range(500)}),
        ({"items": {"enum": ["y" * 100 + str(n) for n in range(5000)]}}, ["x"] * 500),
    ],
    ids=["alternatives", "items", "required", "enum"],
)
def test_faults_whose_description_takes_too_much_are_not_described(schema: dict[str, object], value: object) -> None:
    """The validator would copy the value for each of them."""
    assert SchemaCheck(schema).faults(value) == ["it does not fit the schema"]


def test_a_place_deep_within_a_value_is_told_shortly() -> None:
    """Neither the place nor the message of a fault is longer than a line or two."""
    schema = {"properties": {"a" * 50: {"$ref": "#"}, "b": {"type": "integer"}}}
    (fault,) = SchemaCheck(schema).faults(_nested(50, {"b": "x" * 500}, "a" * 50))
    assert len(fault) < 400


def test_all_checks_of_a_reply_share_one_effort() -> None:
    """A value that can be checked by itself can't be checked a hundred times."""
    check, effort = SchemaCheck({"contains": {"enum": _OBJECTS}}), Effort()
    value = [*([{"a": -1}] * 30), {"a": 5}]
    assert check.faults(value, effort) == []
    faults = [check.faults(value, effort) for _ in range(100)]
    assert faults[-1] == ["it is too large for this schema"]
    assert check.faults(value) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"type": "integer"}}, ["1"] * 100_000),
        ({"type": "array", "items": {"type": "integer"}}, str(["1"] * 100_000).replace("'", '"')),
        ({"type": "array", "items": {"$ref": "#"}}, "[" * 400 + "]" * 400),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["b"]}, _nested(400, 1)),
        ({"items": {"anyOf": [{"required": [f"a{n}"]} for n in range(500)]}}, [{"b": "1"}] * 500),
    ],
    ids=["items", "items in a text", "lists in a text", "deep", "alternatives"],
)
def test_coercion_gives_up_where_it_would_take_too_long(schema: dict[str, object], value: object) -> None:
    """What has too many parts, or too many levels, stays as it is."""
    assert coerced(value, SchemaCheck(schema)) == value
