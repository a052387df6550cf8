"""JSON of upstreams, good and not so good."""

import math

import pytest

from app.providers.json_objects import json_object


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
def test_what_is_meant_is_read(data: bytes, document: dict[str, object] | None) -> None:
    """Strict JSON, and what upstreams send in its place; anything else is None and no error."""
    assert json_object(data) == document


def test_nan_is_a_number_here() -> None:
    """As PHP and Python write it."""
    found = json_object(b'{"a": NaN}')
    assert found is not None
    assert math.isnan(float(str(found["a"])))


def test_broken_characters_can_be_refused() -> None:
    """Where an answer must not be shown with holes in it."""
    assert json_object(b'{"a": "\xff"}', bad_utf8="strict") is None
