"""JSON as it goes out."""

import json

from app.api.encoding import json_bytes


def test_what_json_cannot_say_is_null_or_a_question_mark() -> None:
    """Neither a number beyond all numbers (`1e999` in a request) nor half a surrogate pair takes an answer down."""
    given = {"schema": {"maximum": float("inf"), "enum": [float("nan"), 1.5, "\ud800"]}}
    assert json.loads(json_bytes(given)) == {"schema": {"maximum": None, "enum": [None, 1.5, "?"]}}
