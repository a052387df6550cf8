"""Access lines for people."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from app.observe.pretty import pretty_access_line

_AT = datetime(2026, 11, 27, 6, 41, 4, tzinfo=UTC)
_LINE: dict[str, Any] = {
    "event": "request",
    "request_id": "req_1",
    "method": "POST",
    "path": "/v1/chat/completions",
    "status": 200,
    "ms": 512.3,
    "model": "kimi-k2-instruct-0905",
    "outcome": "completed",
    "error": None,
    "session_action": "stateless",
    "prompt_tokens": 8,
    "completion_tokens": 34,
}


def _row(**fields: Any) -> str:
    return pretty_access_line(_LINE | fields, _AT, colors=False)


def test_a_row_has_everything_that_one_looks_for() -> None:
    """Time, status, method, path, model, outcome, tokens, seconds, in this order."""
    assert _row().split() == [
        *("06:41:04", "200", "POST", "/v1/chat/completions", "kimi-k2-instruct-0905"),
        *("completed", "8+34", "tokens", "0.51", "s"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "模型" * 20},
        {"model": "m" * 200, "path": "/" + "p" * 300},
        {"path": "/v1/\n\x1b[31m"},
        {"error": "upstream_unavailable", "outcome": "failed", "status": 503},
        {"error": "invalid_request_error", "param": "messages[0].content", "status": 400},
        {"status": None, "ms": None},
    ],
    ids=str,
)
def test_columns_stay_where_they_are(fields: dict[str, Any]) -> None:
    """Whatever is in a row, its end stands in the same place, and it is one row."""
    row = _row(**fields)
    places = sum(2 if "\u4e00" <= character <= "\u9fff" else 1 for character in row)
    assert places == len(_row())
    assert row.isprintable()


def test_a_refusal_says_which() -> None:
    """The code, and the field at fault."""
    row = _row(status=400, error="invalid_request_error", param="n", outcome=None, prompt_tokens=1)
    assert "  400  " in row
    assert "invalid_request_error (n)" in row


@pytest.mark.parametrize(("status", "color"), [(200, 32), (404, 33), (503, 31), (None, 33)])
def test_colors_tell_good_from_bad(status: int | None, color: int) -> None:
    """They add nothing else."""
    row = pretty_access_line(_LINE | {"status": status}, _AT, colors=True)
    assert f"\x1b[{color}m" in row
    assert re.sub(r"\x1b\[\d+m", "", row) == _row(status=status)
