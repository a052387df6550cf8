"""What a regular expression in a client's schema may cost, estimated from its text before anything compiles it.

The estimate is an upper bound on the states of the automaton, which repetitions multiply: `(a{100}){100}` has 10,000.
Where the engine could read a pattern in more than one way, the dearest is assumed.
"""

import re

from msgspec import Struct

# In states: what a class outside ASCII, and one by Unicode property, takes compared with a letter.
_UNICODE_CLASS = 25
_UNICODE_PROPERTY = 750
_ANY_CASE = 4
_ENDLESS = 10**9
# The lazy automaton of so few letters and classes always fits its cache, which makes a character cost next to nothing.
_SMALL = 12
# In looks (see `schema`), for each character: of a small automaton, of any other, and of a pattern that backtracks.
_SMALL_COST, _BASE_COST, _BACKTRACKING_COST = 1, 40, 1000

_TOKEN = re.compile(
    r"(?P<property>\\[pP])(?:\{[^}]{0,99}\}|.)?"
    r"|(?P<escape>\\(?:[xu]\{[^}]{0,99}\}|.))"
    r"|(?P<set>\[\^?(?:\\.|[^\]\\])*+(?:\]|\Z))"
    r"|(?P<open>\((?:\?(?:P?<[A-Za-z_][^>]{0,99}>|[a-zA-Z-]{0,9}[:)]|<?[=!])?)?)|(?P<close>\))"
    r"|\{\s*+(?P<least>\d*+)\s*+(?P<comma>,?+)\s*+(?P<most>\d*+)\s*+\}"
    r"|(?P<repeat>[*+?])|(?P<other>.)",
    re.DOTALL,
)
# Escapes that any engine without backtracking knows, besides signs.
_PLAIN_ESCAPES = frozenset("dDwWsSbBnrtfvux0Aza")
_WIDE_ESCAPES = frozenset({"\\D", "\\W", "\\S", "\\s"})
_WIDE = re.compile(r"\\[DWSsxu]|[^\x00-\x7f]")


class PatternCost(Struct, frozen=True):
    """What a pattern costs.

    Args:
        states: The size of its automaton: what it costs to compile.
        per_character: Looks for each character that it is applied to.
        backtracks: Whether the cost also grows with the square of the text's length.
    """

    states: int
    per_character: int
    backtracks: bool


def pattern_cost(pattern: str) -> PatternCost:
    """Estimate what a pattern costs. A text that is no pattern has a cost, too: the compiler refuses it."""
    reader = _Reader()
    for token in _TOKEN.finditer(pattern):
        reader.take(token)
        if (token["repeat"] or token["comma"] is not None) and pattern.startswith("+", token.end()):
            reader.backtracks = True  # possessive
    if reader.is_unclear:
        return PatternCost(_ENDLESS, _ENDLESS, backtracks=True)
    size = reader.size()
    states = size.states * (_ANY_CASE if reader.any_case else 1)
    if reader.backtracks:
        return PatternCost(states, _BACKTRACKING_COST, backtracks=True)
    return PatternCost(states, _SMALL_COST if size.letters <= _SMALL else _BASE_COST + size.letters, backtracks=False)


class _Reader:
    """Adds up the tokens of a pattern: of each group that is still open, the size and that of its last part."""

    def __init__(self) -> None:
        self._sums, self._lasts = [_Size()], [_Size()]
        self.any_case = self.backtracks = self.is_unclear = False

    def take(self, token: "re.Match[str]") -> None:
        if token["open"] is not None:
            self._open(token["open"])
        elif token["close"] is not None:
            if len(self._sums) > 1:
                self._lasts.pop()
                self._lasts[-1] = self._sums.pop()
                self._sums[-1] += self._lasts[-1]
        elif token["comma"] is not None:
            times = max(int(token["most"][:9] or token["least"][:9] or 1), 1)
            self._sums[-1] += self._lasts[-1].times(times - 1)
            self._lasts[-1] = self._lasts[-1].times(times)
        elif token["repeat"] is None:
            self._lasts[-1] = _Size(1, _states(token))
            self._sums[-1] += self._lasts[-1]
            self.backtracks = self.backtracks or _is_foreign(token["escape"])

    def size(self) -> "_Size":
        whole = _Size()
        for part in self._sums:
            whole += part
        return whole

    def _open(self, opened: str) -> None:
        flags = opened[2:-1] if opened.endswith((":", ")")) else ""
        self.any_case = self.any_case or "i" in flags
        # White space and comments could hide anything from this estimate.
        self.is_unclear = self.is_unclear or "x" in flags
        # A look around, or anything else that automata don't know.
        self.backtracks = self.backtracks or opened == "(?" or opened.endswith(("=", "!"))
        if not opened.endswith(")"):
            self._sums.append(_Size())
            self._lasts.append(_Size())


class _Size(Struct):
    """The letters and classes of a part of a pattern, repetitions written out, and its states."""

    letters: int = 0
    states: int = 0

    def times(self, number: int) -> "_Size":
        return _Size(min(self.letters * number, _ENDLESS), min(self.states * number, _ENDLESS))

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(min(self.letters + other.letters, _ENDLESS), min(self.states + other.states, _ENDLESS))


def _states(token: "re.Match[str]") -> int:
    text = token[0]
    if token["property"] is not None:
        return _UNICODE_PROPERTY
    if token["set"] is not None:
        named = text.count("\\p") + text.count("\\P")
        is_wide = text.startswith("[^") or _WIDE.search(text) is not None
        return max(named * _UNICODE_PROPERTY, _UNICODE_CLASS if is_wide else 1)
    if token["escape"] is not None:
        return _UNICODE_CLASS if text in _WIDE_ESCAPES else 4 if len(text) > 2 else 1
    return _UNICODE_CLASS if text == "." else len(text.encode("utf-8", "replace"))


def _is_foreign(escape: str | None) -> bool:
    """Whether an escape is a reference to a group, or anything else that automata don't know."""
    return escape is not None and escape[1].isalnum() and escape[1] not in _PLAIN_ESCAPES
