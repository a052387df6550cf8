"""What property tests draw from: texts as awkward as they come."""

import regex
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# How long an example takes is nobody's business here: machines differ.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Graphemes of several code points, and what breaks them, lines, decoders and role tags.
AWKWARD = (
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪",
    "🇫🇷",
    "e\u0301",
    "\u0301",
    "\u1112\u1161\u11ab",
    "क्षि",
    "\u200d",
    "\r\n",
    "\r",
    "\n",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x00",
    "\U0010ffff",
    "月",
    "ж",
    "[User]: ",
    "[system]:",
    "]: ",
    "data: ",
)

# Everything that can be written as UTF-8.
texts = st.lists(st.sampled_from(AWKWARD) | st.text(max_size=8), max_size=12).map("".join)
# Everything that a str can hold, halves of surrogate pairs included.
wild_texts = st.lists(
    st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=()), max_size=8), max_size=12
).map("".join)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=60)


def graphemes(text: str) -> list[str]:
    """The text in what a reader sees as characters."""
    return [str(grapheme) for grapheme in regex.findall(r"\X", text)]


def boundaries(text: str) -> list[int]:
    """All places where the text may be cut, in order; its beginning and its end among them."""
    places = [0]
    for grapheme in graphemes(text):
        places.append(places[-1] + len(grapheme))
    return places
