"""JSON for clients, for upstreams and for stores."""

import json
import math

import pytest

from app.domain.json import (
    exact_json_bytes,
    json_bytes,
    lenient_json_bytes,
    read_exact_json,
    read_json_object,
    strict_json_bytes,
)

DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]


def test_what_json_cannot_express_becomes_null_or_a_question_mark() -> None:
    """Neither an infinity (`1e999` in a request) nor a lone surrogate makes an answer fail."""
    given = {"schema": {"maximum": float("inf"), "enum": [float("nan"), 1.5, "\ud800"]}}
    for encode in (json_bytes, lenient_json_bytes):
        assert json.loads(encode(given)) == {"schema": {"maximum": None, "enum": [None, 1.5, "?"]}}


def test_no_line_of_a_stream_ends_within_a_document() -> None:
    """A client that splits lines at all of Unicode's line ends finds none, and every other character is unchanged."""
    text = "one\ntwo\x85three\u2028four\u2029fünf 🎉\x0b\x0c\x1c"
    for value in (text, text + "\ud800"):
        document = json_bytes([value]).decode()
        assert document.splitlines() == [document]
        assert json.loads(document) == [value.replace("\ud800", "?")]
        assert "fünf 🎉" in document


@pytest.mark.parametrize("value", [{"a": None, "b": [1, 2.5]}, {"a": "\ud800", "b": None}, {"a": 10**30}])
def test_strict_json_takes_every_value_that_json_has(value: dict[str, object]) -> None:
    """Null, large numbers and lone surrogates (as question marks) pass."""
    assert json.loads(strict_json_bytes(value)) == {k: "?" if v == "\ud800" else v for k, v in value.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [None, float("-inf")], object(), DEEP])
def test_strict_json_refuses_what_json_does_not_have(value: object) -> None:
    """Nobody is sent null for a number that isn't one, and nothing but ValueError is raised."""
    with pytest.raises(ValueError, match=r"JSON"):
        strict_json_bytes({"value": value})


@pytest.mark.parametrize("text", ["plain", "月", "\ud83d", "\ude00\ud83d", "\ud83d" + "\ude00", "a\u2028b"])
def test_a_store_gives_back_the_very_same_text(text: str) -> None:
    """Two lone surrogates side by side stay two, in long values as in short ones."""
    value = {"text": text, "numbers": [1, 2.5, 10**30, None]}
    assert read_exact_json(exact_json_bytes(value)) == value


def test_damaged_stored_json_is_a_value_error() -> None:
    """Whatever is wrong with the bytes, callers have one kind of error to catch."""
    for data in (b"", b"{", b"\xff", b"{} more"):
        with pytest.raises(ValueError):  # noqa: PT011 - the words are the decoder's
            read_exact_json(data)


@pytest.mark.parametrize(
    ("data", "document"),
    [
        (b' {"a": [1, 2.5, null]} \n', {"a": [1, 2.5, None]}),
        (b'\xef\xbb\xbf{"a": "b"}', {"a": "b"}),
        (b'{"a": 1e999}', {"a": math.inf}),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b"[1]", None),
        (b'{"a": 1} and more', None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_an_upstream_s_object_is_read_leniently(data: bytes, document: dict[str, object] | None) -> None:
    """Strict JSON is read, and so is what upstreams send in its place; anything else is None and no error."""
    assert read_json_object(data) == document


def test_nan_is_read_as_a_number() -> None:
    """PHP and Python write it."""
    found = read_json_object(b'{"a": NaN}')
    assert found is not None
    assert math.isnan(float(str(found["a"])))


def test_invalid_utf8_can_be_refused() -> None:
    """For answers that must not be shown with holes in them."""
    assert read_json_object(b'{"a": "\xff"}', bad_utf8="strict") is None
