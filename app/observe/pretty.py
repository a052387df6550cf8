"""Access lines for people: one row for each request, in columns. Pure."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_PATH, _MODEL, _OUTCOME, _TOKENS = 24, 24, 26, 12
_RESET, _DIM, _GREEN, _YELLOW, _RED = "\x1b[0m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m"


def pretty_access_line(fields: Mapping[str, Any], at: datetime, *, colors: bool) -> str:
    """Time, status, method, path, model, outcome, tokens and seconds of a request.

    Args:
        fields: Its access line.
        at: When it ended, in the time zone that is shown.
        colors: Whether the row is for a terminal that shows colours.
    """
    status = fields.get("status")
    tokens = f"{fields['prompt_tokens']}+{fields['completion_tokens']}" if "prompt_tokens" in fields else ""
    row = "  ".join(
        (
            _in_color(f"{status or '---':>3}", _color_of(status)) if colors else f"{status or '---':>3}",
            f"{_plain(fields['method'], 7):<7}",
            _column(fields["path"], _PATH),
            _column(fields.get("model") or "", _MODEL),
            _column(_outcome(fields), _OUTCOME),
            f"{tokens:>{_TOKENS}}{' tokens' if tokens else '       '}",
            f"{(fields.get('ms') or 0) / 1000:7.2f} s",
        )
    )
    time = f"{at:%H:%M:%S}"
    return f"{_in_color(time, _DIM) if colors else time}  {row}"


def _outcome(fields: Mapping[str, Any]) -> str:
    """How it ended: the error, if there was one, and the field at fault."""
    error, param = fields.get("error"), fields.get("param")
    if error:
        return f"{error} ({param})" if param else error
    if fields.get("session_action") in ("continued", "replayed"):
        return f"{fields.get('outcome')}, {fields['session_action']}"
    return fields.get("outcome") or ""


def _column(text: str, width: int) -> str:
    """A text in a column: cut, or filled up, to so many places of a terminal."""
    shown = _plain(text, width)
    return shown + " " * (width - _places(shown))


def _plain(text: str, width: int) -> str:
    """A text without control characters, cut to so many places."""
    text = "".join(character if character.isprintable() else "?" for character in text[: 4 * width])
    if _places(text) <= width:
        return text
    while _places(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def _places(text: str) -> int:
    """How many places a text takes in a terminal: Chinese characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _color_of(status: int | None) -> str:
    return _YELLOW if status is None else _GREEN if status < 400 else _YELLOW if status < 500 else _RED


def _in_color(text: str, color: str) -> str:
    return f"{color}{text}{_RESET}"
