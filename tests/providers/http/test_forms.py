"""Texts in forms are quoted as the standard library quotes them."""

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.http.forms import quoted

# The last kind is long, with few that must be quoted or with many: each has its own way.
LONG = st.tuples(st.text(min_size=1), st.sampled_from(["abc", "a c", "漢字"])).map(lambda pair: pair[0] + pair[1] * 50)
TEXTS = LONG | st.text() | st.text(st.characters(max_codepoint=127)) | st.text(st.sampled_from("aä %+&=~\ud800漢\n😀"))


@given(TEXTS)
def test_a_text_is_quoted_as_urllib_would_quote_it(text: str) -> None:
    """Every character, known or not, is quoted as by `quote_plus`; lone surrogates become question marks."""
    assert quoted(text) == quote_plus(text, errors="replace").encode()


@pytest.mark.parametrize("text", ["".join(map(chr, range(128))), "".join(map(chr, range(0x2000)))])
def test_no_character_is_forgotten(text: str) -> None:
    """All of ASCII at once, and many others."""
    assert quoted(text) == quote_plus(text).encode()
