"""Tools told in few words."""

from app.domain.chat import Tool
from app.domain.emulation.brief import brief
from app.domain.emulation.schema import SchemaCheck
from app.domain.emulation.signatures import signatures

PARAMETERS = {
    "type": "object",
    "description": "What to do.",
    "properties": {
        "description": {"type": "string", "description": "In words.", "maxLength": 9},
        "how": {"enum": [{"description": "kept"}], "description": "In which way."},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["description"],
    "$defs": {"part": {"type": "object", "description": "A part.", "properties": {"a": {"type": "integer"}}}},
}


def test_a_tool_keeps_its_name_its_parameters_and_its_first_sentence() -> None:
    """Explanations go; a parameter may be called `description`, and data may have such a member."""
    short = brief(Tool("do", "Does it, e.g. now. And then more.\n\nAt length.", PARAMETERS))
    assert short.name == "do"
    assert "description" not in short.parameters
    assert short.parameters["required"] == ["description"]
    line = signatures([short])
    assert 'do(description: string /* at most 9 characters */, how?: {"description":"kept"}' in line
    assert all(words not in line for words in ("In words", "In which way", "A part", "At length", "What to do"))


def test_the_first_sentence_is_found() -> None:
    """Up to its end, in Chinese too, or to the end of its line; a schema's own words stand in for missing ones."""
    for words, first in [
        ("One. Two.", "One."),
        ("查天气。再说。", "查天气。"),
        ("Version 1.5 of it\nMore", "Version 1.5 of it"),
        ("\n  Indented.\n  More.", "Indented."),
        ("", "What to do."),
    ]:
        assert brief(Tool("do", words, PARAMETERS)).description == first


def test_what_fits_the_schema_fits_it_in_few_words() -> None:
    """Calls are checked the same."""
    schema = brief(Tool("do", "", PARAMETERS)).parameters
    for value in (
        {"description": "short"},
        {"description": "much too long"},
        {"how": 1},
        {"description": "", "parts": [{"a": ""}]},
    ):
        assert bool(SchemaCheck(schema).faults(value)) == bool(SchemaCheck(PARAMETERS).faults(value))
