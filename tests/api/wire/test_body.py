"""Bodies: what is wrong with one is said by its place, in whatever dialect."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from app.api.anthropic.errors import anthropic_fault
from app.api.wire.body import given_fields, nameable, parse_body
from app.domain.errors import InvalidRequest


def _tag(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<text>"


class _Inner(BaseModel):
    count: int


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow")

    tagged: Annotated[Annotated[str, Tag("<text>")] | Annotated[list[_Inner], Tag("<list>")], Discriminator(_tag)] = ""
    plain: str | list[int] | None = None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"tagged": [{"count": 1}, {"count": "x"}]}', "tagged[1].count"),
        (b'{"tagged": 7}', "tagged"),
        (b'{"plain": {}}', "plain"),
    ],
)
def test_the_field_at_fault_is_named_as_clients_write_it(body: bytes, param: str | None) -> None:
    """No name of a union's member gets into a place; what isn't an object has no place."""
    with pytest.raises(InvalidRequest) as refusal:
        parse_body(_Body, body)
    assert refusal.value.param == param
    assert (f"'{param}'" if param else "The request body ") in refusal.value.message


def test_each_dialect_has_its_own_way_to_write_places() -> None:
    """OpenAI puts numbers into brackets, Anthropic between dots."""
    with pytest.raises(InvalidRequest) as refusal:
        parse_body(_Body, b'{"tagged": [{"count": "x"}]}', fault=anthropic_fault)
    assert refusal.value.param == "tagged.0.count"
    assert refusal.value.message.startswith("tagged.0.count: ")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_refused_anywhere(word: str) -> None:
    """Also in fields that the type doesn't know; as a text it is a text."""
    with pytest.raises(InvalidRequest, match="could not be parsed as JSON"):
        parse_body(_Body, f'{{"further": [{word}]}}'.encode())
    assert parse_body(_Body, f'{{"plain": "{word}"}}'.encode()).plain == word


def test_a_request_without_a_body_is_told_so() -> None:
    """Rather than where in nothing the JSON breaks off."""
    with pytest.raises(InvalidRequest, match="has no body"):
        parse_body(_Body, b"")


def test_a_byte_order_mark_is_no_fault() -> None:
    """What some editors put before the JSON is skipped."""
    assert parse_body(_Body, b'\xef\xbb\xbf{"plain": "x"}').plain == "x"


def test_given_fields_are_those_that_say_something() -> None:
    """Null means absent, and fields that the type doesn't know count too; only plain names can be told in a header."""
    given = given_fields(parse_body(_Body, '{"plain": null, "b": 1, "a": null, "ä": 2}'.encode()))
    assert given.keys() == {"b", "ä"}
    assert nameable(given) == ["b"]
