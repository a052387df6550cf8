"""The text of a key."""

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from app.keys.secret import digest_of, hint_of, is_well_formed, make_secret

_ALPHABET = string.ascii_letters + string.digits


def test_a_key_has_190_random_bits_and_checks_itself() -> None:
    """32 characters of 62, and no two alike."""
    keys = {make_secret() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("sk-kimi-") and len(key) == 46 and is_well_formed(key.encode()) for key in keys)


@given(place=st.integers(8, 45), character=st.sampled_from(_ALPHABET))
def test_a_typo_is_found_without_a_look_up(place: int, character: str) -> None:
    """Any other character anywhere makes the key ill-formed."""
    key = make_secret()
    wrong = key[:place] + character + key[place + 1 :]
    assert is_well_formed(wrong.encode()) == (wrong == key)


@given(st.binary(max_size=60))
def test_anything_else_is_ill_formed(presented: bytes) -> None:
    """Whatever bytes a client sends."""
    assert not is_well_formed(presented)
    assert not is_well_formed(b"sk-kimi-" + presented[:38])


def test_what_is_kept_is_a_digest_and_both_ends() -> None:
    """Neither leads back to the key."""
    key = make_secret()
    assert digest_of(key) == hashlib.sha256(key.encode()).hexdigest()
    assert hint_of(key) == f"{key[:12]}…{key[-4:]}"
