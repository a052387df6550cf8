"""JSON as it goes out."""

import json

from app.api.encoding import json_bytes


def test_what_json_cannot_say_is_null_or_a_question_mark() -> None:
    """Neither a number beyond all numbers (`1e999` in a request) nor half a surrogate pair takes an answer down."""
    given = {"schema": {"maximum": float("inf"), "enum": [float("nan"), 1.5, "\ud800"]}}
    assert json.loads(json_bytes(given)) == {"schema": {"maximum": None, "enum": [None, 1.5, "?"]}}


def test_no_line_of_a_stream_ends_within_a_document() -> None:
    """Whatever takes for a line's end all that Unicode does finds none, and everything else comes as it is."""
    text = "one\ntwo\x85three\u2028four\u2029fünf 🎉\x0b\x0c\x1c"
    for value in (text, text + "\ud800"):
        document = json_bytes([value]).decode()
        assert document.splitlines() == [document]
        assert json.loads(document) == [value.replace("\ud800", "?")]
        assert "fünf 🎉" in document
