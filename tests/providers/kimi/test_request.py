"""What the site is sent."""

import re
from urllib.parse import parse_qsl

from app.providers.kimi.request import lasting_session_id, message_form, new_session_id


def test_a_message_is_the_form_that_the_site_expects() -> None:
    """The fields of the form are those of the site's own page, each quoted."""
    form = message_form(nonce="0a&1", message="Hi\n月", model="moonshotai/Kimi", session_id="session_1_a")
    assert parse_qsl(form.decode(), strict_parsing=True) == [
        ("action", "kimi_send_message"),
        ("nonce", "0a&1"),
        ("message", "Hi\n月"),
        ("model", "moonshotai/Kimi"),
        ("session_id", "session_1_a"),
    ]


def test_session_ids_look_like_the_sites_own() -> None:
    """An id is made of milliseconds and nine random characters, and no two are the same."""
    ids = {new_session_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"session_\d{13}_[a-z0-9]{9}", one) for one in ids)


def test_a_conversation_s_session_id_lasts() -> None:
    """Every worker derives the same id, in the same format, from any text; another conversation has another."""
    one, same, other = map(lasting_session_id, ("alice:\ud800", "alice:\ud800", "bob"))
    assert one == same != other
    assert re.fullmatch(r"session_\d{13}_[a-f0-9]{9}", one)
