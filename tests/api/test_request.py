import pytest
from app.api.headers import MAX_SESSION_ID, SessionHints, opening_headers, session_hints
from hypothesis import given

from app.chat.events import Opening
from app.domain.chat import SessionRef
from app.domain.errors import InvalidRequest
from app.domain.prompt import Prompt, PromptLimit
from tests.domain.strategies import UNTIMED, texts

NOTHING = SessionHints(session=None, reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None)
PROMPT = Prompt("text", 986, PromptLimit(1000), dropped=2, shortened=1)


def raw(headers: dict[str, str]) -> dict[bytes, bytes]:
    """As they come in."""
    return {name.encode(): value.encode("latin-1") for name, value in headers.items()}


@pytest.mark.parametrize(
    ("headers", "user", "session"),
    [
        ({}, None, None),
        ({}, "", None),
        ({"x-session-id": ""}, None, None),
        ({"x-session-id": "  "}, None, None),
        ({"x-session-id": "a"}, None, SessionRef("a", "header")),
        ({"x-session-id": "  a b  "}, None, SessionRef("a b", "header")),
        ({"x-session-id": "a"}, "u", SessionRef("a", "header")),
        ({"x-session-id": " "}, "u", SessionRef("u", "user")),
        ({}, "u", SessionRef("u", "user")),
        ({}, "李雷 🎉", SessionRef("李雷 🎉", "user")),
        ({"x-session-id": "%E6%9D%8E%20%E9%9B%B7"}, None, SessionRef("李 雷", "header")),
        ({"x-session-id": "李雷".encode().decode("latin-1")}, None, SessionRef("李雷", "header")),
        ({"x-session-id": "100%"}, None, SessionRef("100%", "header")),
        ({"x-session-id": "\xff"}, None, SessionRef("\ufffd", "header")),
        ({"x-session-id": "a" * MAX_SESSION_ID}, None, SessionRef("a" * MAX_SESSION_ID, "header")),
        ({"x-session-id": "a"}, "u" * 300, SessionRef("a", "header")),
        ({"user-agent": "x", "x-forwarded-for": "192.0.2.1", "cookie": "id=1"}, None, None),
    ],
)
def test_a_session_is_named_by_header_or_else_by_user(
    headers: dict[str, str], user: str | None, session: SessionRef | None
) -> None:
    """The header wins over `user`; without either there is no session, whatever else is known of the client."""
    assert session_hints(raw(headers), user)["session"] == session


@pytest.mark.parametrize(
    ("headers", "user", "param"),
    [
        ({"x-session-id": "a" * (MAX_SESSION_ID + 1)}, None, "X-Session-Id"),
        ({}, "u" * (MAX_SESSION_ID + 1), "user"),
    ],
)
def test_a_session_id_has_its_limit(headers: dict[str, str], user: str | None, param: str) -> None:
    """A longer id is refused by the name of where it came from."""
    with pytest.raises(InvalidRequest, match="256") as caught:
        session_hints(raw(headers), user)
    assert caught.value.param == param


@pytest.mark.parametrize("name", ["reset", "strict"])
@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("on", True),
        ("yes", True),
        ("false", False),
        ("0", False),
        ("", False),
    ],
)
def test_switches_are_on_when_they_say_so(name: str, value: str, meant: bool) -> None:
    """A switch takes the usual words, in any case; everything else is off."""
    hints = session_hints(raw({f"x-session-{name}": value}), None)
    assert (hints["reset"], hints["strict"]) == (meant and name == "reset", meant and name == "strict")


@pytest.mark.parametrize(
    ("value", "is_retry"),
    [
        ("0", False),
        ("00", False),
        ("1", True),
        ("12", True),
        ("", False),
        ("-1", False),
        ("x", False),
        ("²", False),
        ("1" * 5000, True),
    ],
)
def test_an_sdk_tells_when_it_tries_again(value: str, is_retry: bool) -> None:
    """A retry count above nothing marks a retry; nonsense marks none."""
    assert session_hints(raw({"x-stainless-retry-count": value}), None)["is_retry"] is is_retry


def test_no_headers_say_nothing() -> None:
    """A plain request has no session, is no retry and has no key; an empty key is none."""
    assert session_hints({}, None) == session_hints({b"idempotency-key": b""}, None) == NOTHING
    assert session_hints({b"idempotency-key": b"k1"}, None)["idempotency_key"] == "k1"


def test_a_response_tells_how_its_prompt_came_about() -> None:
    """Action, size, what was left out and who answered are there; what doesn't apply isn't."""
    assert dict(opening_headers(Opening("kimi", "kimi-site", None, "stateless", PROMPT), [])) == {
        b"x-session-action": b"stateless",
        b"x-prompt-chars": b"986/1000",
        b"x-context-dropped": b"2",
        b"x-context-shortened": b"1",
        b"x-provider": b"kimi-site",
    }


@pytest.mark.parametrize(
    ("session_id", "told"),
    [
        ("chat-1", "chat-1"),
        ("a b/c:d+e@f", "a b/c:d+e@f"),
        ("100%", "100%25"),
        ("a\r\nset-cookie: x", "a%0D%0Aset-cookie: x"),
        ("李雷", "%E6%9D%8E%E9%9B%B7"),
        ("é", "%C3%A9"),
    ],
)
def test_a_session_id_can_stand_in_a_header(session_id: str, told: str) -> None:
    """The id comes back as it is where that is possible, and percent-encoded where it isn't."""
    headers = dict(opening_headers(Opening("kimi", "kimi-site", session_id, "new", PROMPT), []))
    assert headers[b"x-session-id"] == told.encode()


@UNTIMED
@given(session_id=texts.map(str.strip).filter(bool))
def test_the_id_that_is_told_leads_back_to_the_session(session_id: str) -> None:
    """Whoever sends the id of a response in the header of the next request means the same session."""
    told = dict(opening_headers(Opening("kimi", "kimi-site", session_id, "new", PROMPT), []))[b"x-session-id"]
    hints = session_hints({b"x-session-id": told}, None)
    assert hints["session"] == SessionRef(session_id, "header")


def test_ignored_parameters_are_listed_up_to_a_number() -> None:
    """The list is sorted, and a request with very many fields makes no very long header."""
    opening = Opening("kimi", "kimi-site", None, "stateless", PROMPT)
    assert dict(opening_headers(opening, ["top_p", "seed"]))[b"x-ignored-params"] == b"seed, top_p"
    listed = dict(opening_headers(opening, [f"field_{number:03}" for number in range(500)]))[b"x-ignored-params"]
    assert len(listed.split(b", ")) == 32
