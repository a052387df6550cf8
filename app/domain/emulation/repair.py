"""Reads JSON with the mistakes that models make, where the meaning is beyond doubt.

These are single and typographic quotes, raw line breaks in strings, backslashes that escape nothing, names without
quotes, Python's True, False and None, trailing commas, comments, and closing brackets that are missing at the end.
It takes one pass over the text and guesses no content: a string that is cut off stays unreadable.
"""

import re
from decimal import Decimal

from app.domain.emulation.jsontext import decode, skip_space

_CLOSING_QUOTE = {'"': '"', "'": "'", "“": "”", "”": "”", "‘": "’", "„": "“", "«": "»"}
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_WORD = re.compile(r"[^\W\d][\w.-]{0,200}")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)')
_PLAIN = re.compile(r"[^\\\"'”’“»]+")
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_AFTER_STRING = frozenset(",:]}")
_DEEPEST = 100
# Which takes up to a microsecond for each character.
_LONGEST = 100_000


def repaired(text: str, *, may_close: bool) -> object:
    """The value that a text means.

    Args:
        text: From its first bracket on. Superfluous closing brackets may follow.
        may_close: Whether to add closing brackets that are missing at the end. Not for a text that may be cut off.

    Raises:
        ValueError: The meaning is unclear.
    """
    if len(text) > _LONGEST:
        raise ValueError("the JSON is wrong, and too long to be repaired")
    reader = _Reader(text, may_close)
    value = reader.value(0)
    rest = text[reader.place :].strip().strip("]}")
    if rest.strip():
        raise ValueError(f"something follows the JSON, at character {reader.place}")
    return value


class _Reader:
    def __init__(self, text: str, may_close: bool) -> None:
        self._text = text
        self._may_close = may_close
        self.place = 0

    def value(self, depth: int) -> object:
        if depth > _DEEPEST:
            raise ValueError("the JSON is nested too deeply")
        char = self._next()
        if char == "{":
            return self._object(depth)
        if char == "[":
            return self._array(depth)
        if char in _CLOSING_QUOTE:
            return self._string()
        return self._scalar()

    def _object(self, depth: int) -> dict[str, object]:
        self.place += 1
        members: dict[str, object] = {}
        while not self._closes("}"):
            name = self._name()
            if self._next() != ":":
                raise self._wrong()
            self.place += 1
            members[name] = self.value(depth + 1)
            self._separated("}")
        return members

    def _array(self, depth: int) -> list[object]:
        self.place += 1
        items: list[object] = []
        while not self._closes("]"):
            items.append(self.value(depth + 1))
            self._separated("]")
        return items

    def _name(self) -> str:
        if self._next() in _CLOSING_QUOTE:
            return self._string()
        word = _WORD.match(self._text, self.place)
        if word is None:
            raise self._wrong()
        self.place = word.end()
        return word[0]

    def _closes(self, bracket: str) -> bool:
        char = self._next()
        if char == bracket:
            self.place += 1
            return True
        return char == "" and self._may_close

    def _separated(self, bracket: str) -> None:
        """Skip the comma after a member, which is optional before the closing bracket."""
        char = self._next()
        if char == ",":
            self.place += 1
        elif char != bracket and (char or not self._may_close):
            raise self._wrong()

    def _scalar(self) -> object:
        number = _NUMBER.match(self._text, self.place)
        found = number or _WORD.match(self._text, self.place)
        if found is None or (number is None and found[0] not in _WORDS):
            raise self._wrong()
        self.place = found.end()
        if number is None:
            return _WORDS[found[0]]
        return Decimal(found[0]) if not found[0].lstrip("-").isdigit() or len(found[0]) > 300 else int(found[0])

    def _string(self) -> str:
        opening = self._text[self.place]
        closing = _CLOSING_QUOTE[opening]
        self.place += 1
        pieces: list[str] = []
        while self.place < len(self._text):
            char = self._text[self.place]
            if char == closing and self._ends_string(opening):
                self.place += 1
                return "".join(pieces)
            pieces.append(self._piece(char))
        raise ValueError("a string is cut off")

    def _ends_string(self, opening: str) -> bool:
        """Whether a quote ends the string. An apostrophe or typographic quote does so only where a string can end."""
        if opening == '"':
            return True
        after = skip_space(self._text, self.place + 1)
        return after == len(self._text) or self._text[after] in _AFTER_STRING

    def _piece(self, char: str) -> str:
        if char == "\\":
            return self._escaped()
        plain = _PLAIN.match(self._text, self.place)
        if plain is None:
            self.place += 1
            return char
        self.place = plain.end()
        return plain[0]

    def _escaped(self) -> str:
        escape = _ESCAPE.match(self._text, self.place)
        if escape is not None:
            self.place = escape.end()
            return str(decode(f'"{escape[0]}"', 0)[0])
        following = self._text[self.place + 1 : self.place + 2]
        if following == "'":
            self.place += 2
            return "'"
        self.place += 1
        return "\\"

    def _next(self) -> str:
        """Skip white space and comments, and return the next character; "" at the end."""
        while True:
            self.place = skip_space(self._text, self.place)
            char = self._text[self.place : self.place + 1]
            comment = _COMMENT.match(self._text, self.place) if char == "/" else None
            if comment is None:
                return char
            self.place = comment.end()

    def _wrong(self) -> ValueError:
        return ValueError(f"the JSON is wrong at character {self.place}")
