import pytest

from app.domain.emulation.emulator import Unreadable
from tests.domain.emulation.tools import json_only

_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ('{"a": 1.50, "b": "\\u00e9"}', '{"a": 1.50, "b": "\\u00e9"}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('Here {it} is:\n```\n{"a": 1}\n```\nDone.', '{"a": 1}'),
        ('Here: {"a": {"b": 1}}.', '{"a": {"b": 1}}'),
        ('<think>{"x": 1}</think>{"a": 1}', '{"a": 1}'),
        ('{"a": "```json {}"}', '{"a": "```json {}"}'),
        ("{'a': 1,}", '{"a":1}'),
        ("Sure: {'a': {\"b\": 1}, 'c': None} ok", '{"a":{"b":1},"c":null}'),
        ("{}", "{}"),
    ],
)
def test_the_one_object_is_found(reply: str, text: str) -> None:
    """Alone, fenced or among words, the object is the answer: as written if it is valid JSON, else put right."""
    assert json_only().read(reply).text == text


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "empty"),
        ("Hello", "no JSON"),
        ("[1]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ('{"a": 1} {"b": 2}', "more than one"),
        ('{"a": [1, 2', "cut off"),
        ('{"a": {"b": 1}, "c": ', "cut off"),
        ('{a: {"b": 1}, "c": ', "cut off"),
        ("<think>hm", "empty"),
        ('{"a": NaN}', "cut off"),
        ("{" * 5000, "cut off"),
        ('{"a":' * 5000, "cut off"),
    ],
)
def test_anything_else_is_no_answer(reply: str, why: str) -> None:
    """What is not exactly one whole object is asked for again, and never given in place of one."""
    with pytest.raises(Unreadable) as caught:
        json_only().read(reply)
    assert why in caught.value.message
    assert why in caught.value.reminder
    assert caught.value.fallback is None


def test_an_answer_fits_its_schema() -> None:
    """The schema decides; a number in quotes is put right, a wrong value is told to the model."""
    reader = json_only(_SCHEMA)
    assert reader.read('{"n": 1}').text == '{"n": 1}'
    assert reader.read('Well: {"n": "1"}').text == '{"n":1}'
    with pytest.raises(Unreadable, match="'m' was unexpected"):
        reader.read('{"n": 1, "m": 2}')


def test_a_schema_may_ask_for_something_else_than_an_object() -> None:
    """An array or a string is an answer where the schema says so."""
    assert json_only({"type": "array", "items": {"type": "integer"}}).read("Sure: [1, 2]").text == "[1, 2]"
    assert json_only({"type": "string"}).read('"yes"').text == '"yes"'


def test_what_is_too_long_is_not_repaired() -> None:
    """Repairing reads a text character by character; a valid one may be of any length."""
    long = "x" * 200_000
    assert json_only().read(f'{{"a": "{long}"}}').text
    assert json_only().read("{'a': 'x'}").text == '{"a":"x"}'
    with pytest.raises(Unreadable, match="too long to be repaired"):
        json_only().read(f"{{'a': '{long}'}}")
