from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.caller import Caller, caller_of_key
from tests.domain.strategies import UNTIMED

_keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60)


@UNTIMED
@given(key=_keys)
def test_the_id_of_a_caller_says_nothing_of_the_key(key: str) -> None:
    """The id that goes to logs and session keys does not hold the API key, and is short."""
    caller = caller_of_key(key)
    assert key not in caller.id
    assume(key not in repr(Caller("")))  # "environm" is a word of every caller
    assert key not in repr(caller)
    assert len(caller.id) < 20


@UNTIMED
@given(one=_keys, other=_keys)
def test_every_key_is_a_caller_of_its_own(one: str, other: str) -> None:
    """The same key is always the same caller, another key always another."""
    assume(one != other)
    assert caller_of_key(one) == caller_of_key(one)
    assert caller_of_key(one).id != caller_of_key(other).id
