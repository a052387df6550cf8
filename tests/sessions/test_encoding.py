"""Sessions as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.chat import Message, ToolCall, Usage
from app.domain.conversation import LastTurn, Session
from app.domain.documents import UnreadableDocument
from app.sessions.encoding import decode, encode

any_text = st.text(st.characters(codec=None, categories=None), max_size=50)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    text=any_text,
    name=st.none() | any_text,
    tool_calls=st.lists(st.builds(ToolCall, any_text, any_text, any_text), max_size=2).map(tuple),
    tool_call_id=st.none() | any_text,
)
moments = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(min_value=0)
sessions = st.builds(
    Session,
    id=any_text,
    created_at=moments,
    updated_at=moments,
    system=st.lists(messages, max_size=2).map(tuple),
    turns=st.lists(messages, max_size=5).map(tuple),
    last_turn=st.builds(
        LastTurn,
        fingerprint=any_text,
        idempotency_key=st.none() | any_text,
        text=any_text,
        finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
        usage=st.builds(Usage, counts, counts, counts, counts),
        prompt_size=counts,
        dropped=counts,
        shortened=counts,
        at=moments,
        stop=st.none() | any_text,
    ),
)


@given(sessions)
def test_every_session_survives_its_encoding(kept: Session) -> None:
    """Any session of any text is the same afterwards."""
    assert decode(encode(kept)) == kept


@given(st.binary(max_size=40))
def test_no_bytes_are_mistaken_for_a_session(data: bytes) -> None:
    """Damaged bytes, whatever they are, are told from sessions, and never quoted."""
    for candidate in (data, b"\x01j" + data, b"\x01z" + data):
        with pytest.raises(UnreadableDocument):
            decode(candidate)
