"""Forms are written as the standard library writes them."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.http.client import encode_form

# The last kind is long, with few that must be quoted or with many: each has its own way.
LONG = st.tuples(st.text(min_size=1), st.sampled_from(["abc", "a c", "漢字"])).map(lambda pair: pair[0] + pair[1] * 50)
TEXTS = LONG | st.text() | st.text(st.characters(max_codepoint=127)) | st.text(st.sampled_from("aä %+&=~\ud800漢\n😀"))


@given(st.dictionaries(TEXTS, TEXTS))
def test_a_form_is_what_urllib_would_make_of_it(form: dict[str, str]) -> None:
    """Every character, known or not, is quoted as by `urlencode`; lone surrogates become question marks."""
    assert encode_form(form) == urlencode(form, errors="replace").encode()


@pytest.mark.parametrize("text", ["".join(map(chr, range(128))), "".join(map(chr, range(0x2000)))])
def test_no_character_is_forgotten(text: str) -> None:
    """All of ASCII at once, and many others."""
    assert encode_form({"message": text}) == urlencode({"message": text}).encode()
