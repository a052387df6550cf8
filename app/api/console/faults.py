"""What is wrong with a form, in the reader's language."""

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from string import Formatter

_TEXTS = Path(__file__).parent / "fault_texts"


def translated(message: str, language: str) -> str:
    """What a form is told, as far as it is known in this language; else as it is."""
    for pattern, text in patterns_of(language):
        if found := pattern.fullmatch(message):
            return text.format_map(found.groupdict())
    # The same fault follows a setting's name elsewhere; here it is a sentence of its own.
    return message[0].upper() + message[1:] if re.match("[a-z]+ ", message) else message


@cache
def patterns_of(language: str) -> Sequence[tuple[re.Pattern[str], str]]:
    """What the English messages look like, and the texts in a language; none for English."""
    file = _TEXTS / f"{language}.toml"
    texts: dict[str, str] = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    return [(_pattern(message), text) for message, text in texts.items()]


def _pattern(message: str) -> re.Pattern[str]:
    parts = [
        re.escape(before) + (f"(?P<{name}>.+?)" if name else "") for before, name, _, _ in Formatter().parse(message)
    ]
    return re.compile("".join(parts), re.DOTALL)
