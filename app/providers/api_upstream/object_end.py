"""Where a JSON object ends that arrives in pieces: each piece is looked at once. Pure."""

import re

_MARKS = re.compile(r'[{}"\\]')
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)}


class ObjectEnd:
    """Follows the text of an object by its braces and quotes, without reading it.

    Attributes:
        begins: The first character, if it isn't blank so far, is the object's brace.
        is_blank: Nothing but spaces so far.
        is_over: The object's last brace has come, and nothing but spaces after it.
    """

    __slots__ = ("_depth", "_escaped", "_in_text", "_quotes", "_spoilt", "begins", "is_blank", "is_over")

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = self._spoilt = False
        # Where the quotes of a piece are that begin and end texts, while somebody wants to know.
        self._quotes: list[int] | None = None
        self.is_blank = True
        self.begins = self.is_over = False

    def feed(self, piece: str) -> str:
        """Take the next piece. Returns it as JSON has it: with control characters escaped that stand within a text."""
        if piece.isprintable() or _CONTROL.search(piece) is None:
            self._take(piece)
            return piece
        is_text = self._in_text
        blanks = len(piece) - len(piece.lstrip()) if self.is_blank else 0
        quotes: list[int] = []
        self._quotes = quotes
        self._take(piece)
        self._quotes = None
        parts, start = [], 0
        for place in (*[blanks + quote for quote in quotes], len(piece)):
            part = piece[start:place]
            parts.append(part.translate(_ESCAPES) if is_text else part)
            start, is_text = place, not is_text
        return "".join(parts)

    def _take(self, piece: str) -> None:
        if self.is_blank:
            piece = piece.lstrip()
            if not piece:
                return
            self.is_blank = False
            self.begins = piece[0] == "{"
            self._spoilt = not self.begins
        if self.is_over:
            self._behind(piece)
        elif not self._spoilt:
            self._follow(piece)

    def _follow(self, piece: str) -> None:
        # The place of a character that a backslash stands before.
        escaped = 0 if self._escaped else -1
        for found in _MARKS.finditer(piece):
            place, mark = found.start(), found[0]
            if place == escaped:
                continue
            if mark == '"':
                self._in_text = not self._in_text
                if self._quotes is not None:
                    self._quotes.append(place)
            elif mark == "\\":
                escaped = place + 1
            elif not self._in_text:
                self._depth += 1 if mark == "{" else -1
                if self._depth == 0:
                    self.is_over = True
                    self._behind(piece[place + 1 :])
                    return
        self._escaped = escaped == len(piece)

    def _behind(self, rest: str) -> None:
        if rest.strip():
            self._spoilt, self.is_over = True, False
