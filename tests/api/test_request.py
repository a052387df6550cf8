"""One request: what its headers say, its body, the beginning of its response, and its client's leaving."""

import asyncio

import pytest
from hypothesis import given
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.api.error_responses import OPENAI_ERRORS
from app.api.request import (
    MAX_SESSION_ID,
    ErrorForm,
    JsonReply,
    RequestContext,
    SessionHints,
    cancel_on_disconnect,
    read_body,
    session_hints,
    session_id_header,
)
from app.domain.chat import CacheWish, SessionRef
from app.domain.errors import ClientClosedRequest, InvalidRequest
from tests.domain.strategies import UNTIMED, texts
from tests.live import WAIT_SECONDS

NOTHING = SessionHints(
    session=None, reset=False, strict=False, is_retry=False, idempotency_key=None, provider=None, cache=None
)


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


@pytest.mark.parametrize(("value", "provider"), [(b"", None), (b"  ", None), (b" kimi-web ", "kimi-web")])
def test_a_request_may_name_its_provider(value: bytes, provider: str | None) -> None:
    """Blanks around the name don't count, and blanks alone name nobody."""
    assert session_hints({b"x-provider": value}, None)["provider"] == provider


@pytest.mark.parametrize(
    ("header", "wish"),
    [
        ("", None),
        ("max-age=60", CacheWish(60)),
        (' Private , MAX-AGE = "60" ', CacheWish(60)),
        ("max-age=0", CacheWish(0)),
        ("no-cache", CacheWish(0)),
        ("no-cache, max-age=60", CacheWish(0)),
        ("max-age=60, no-store", CacheWish(0, keeps=False)),
        ("no-store, no-cache", CacheWish(0, keeps=False)),
        ("max-age", None),
        ("max-age=-1", None),
        ("max-age=1.5", None),
        ("max-age=\xb2", None),
        ("max-age=" + "9" * 5000, CacheWish(float("inf"))),
        ("max-stale=60, only-if-cached, =, ,", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_says_what_it_wants_of_kept_answers(header: str, wish: CacheWish | None) -> None:
    """The strictest word counts, and what makes no sense says nothing."""
    assert session_hints(raw({"cache-control": header}), None)["cache"] == wish


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
    assert session_id_header(session_id) == told.encode()


@UNTIMED
@given(session_id=texts.map(str.strip).filter(bool))
def test_the_id_that_is_told_leads_back_to_the_session(session_id: str) -> None:
    """Whoever sends the id of a response in the header of the next request means the same session."""
    hints = session_hints({b"x-session-id": session_id_header(session_id)}, None)
    assert hints["session"] == SessionRef(session_id, "header")


def _received(*messages: Message) -> Receive:
    waiting = list(messages)

    async def receive() -> Message:
        return waiting.pop(0)

    return receive


async def test_a_body_may_come_in_pieces() -> None:
    """They are put together; a client that leaves between them has sent no body."""
    first: Message = {"type": "http.request", "body": b"{", "more_body": True}
    assert await read_body(_received(first, {"type": "http.request", "body": b"}"})) == b"{}"
    assert await read_body(_received({"type": "http.request"})) == b""
    with pytest.raises(ClientDisconnect):
        await read_body(_received(first, {"type": "http.disconnect"}))


def _context(form: ErrorForm = OPENAI_ERRORS) -> RequestContext:
    return RequestContext({}, "request-of-mine", form)


def test_a_response_begins_with_what_every_response_has() -> None:
    """The request's id stands wherever the dialect's clients look for it, and the status is noted for the log."""
    context = _context(ErrorForm(OPENAI_ERRORS.body, request_id_headers=(b"x-request-id", b"request-id")))
    assert context.status is None
    message = context.begin_response(418, [(b"x-own", b"1")])
    headers = dict(message["headers"])
    assert (message["type"], message["status"]) == ("http.response.start", 418)
    assert context.status == message["status"]
    assert int(headers.pop(b"openai-processing-ms")) >= 0
    assert headers == {b"x-own": b"1", b"x-request-id": b"request-of-mine", b"request-id": b"request-of-mine"}


async def test_a_response_that_knows_nothing_of_it_is_completed() -> None:
    """What such a response begins with gets the same headers; one that has begun by the context gets them once."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    foreign = _context()
    completed = foreign.completing(send)
    await completed({"type": "http.response.start", "status": 201, "headers": [(b"x-own", b"1")]})
    await completed({"type": "http.response.body", "body": b"Hi"})
    assert foreign.status == 201
    names = [name for name, _ in sent[0]["headers"]]
    assert names == [b"x-own", b"cache-control", b"openai-processing-ms", b"x-request-id"]
    assert sent[1] == {"type": "http.response.body", "body": b"Hi"}
    sent.clear()
    own = _context()
    await JsonReply(b"{}", [(b"x-own", b"1")], 202)({"type": "http", "context": own}, _received(), own.completing(send))
    start, body = sent
    assert (start["status"], body["body"]) == (202, b"{}")
    assert [name for name, _ in start["headers"]].count(b"x-request-id") == 1
    assert {(b"x-own", b"1"), (b"content-length", b"2"), (b"content-type", b"application/json")} <= {*start["headers"]}


def test_a_context_without_a_caller_serves_nobody() -> None:
    """Code behind a door that was left open fails, instead of taking the client for somebody."""
    with pytest.raises(AttributeError):
        _ = _context().caller


async def test_a_client_that_leaves_cancels_what_is_done_for_it() -> None:
    """The work ends where it waits, as an error that says why; the task itself may go on."""
    leaves = asyncio.Event()

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        with cancel_on_disconnect(receive):
            leaves.set()
            await asyncio.Event().wait()

    with pytest.raises(ClientClosedRequest):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_nobody_watches_a_client_whose_request_is_done() -> None:
    """The watch ends with the block; that more of a body comes doesn't end it."""
    watching, watched = asyncio.Event(), asyncio.Event()
    waiting: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        watching.set()
        try:
            await asyncio.Event().wait()
        finally:
            watched.set()
        return {}

    with cancel_on_disconnect(receive):
        await watching.wait()
    async with asyncio.timeout(WAIT_SECONDS):
        await watched.wait()


async def test_nothing_is_done_for_a_client_that_has_left_already() -> None:
    """It has gone before the work begins."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    begun = False
    with pytest.raises(ClientClosedRequest), cancel_on_disconnect(receive):
        begun = True
    assert not begun
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_watch_goes_on_whenever_a_server_lets_others_run() -> None:
    """A server may do so between two messages, without waiting for anything."""

    async def receive() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientClosedRequest), cancel_on_disconnect(receive):
        await asyncio.Event().wait()


async def test_a_client_that_leaves_as_the_work_ends_cancels_nothing() -> None:
    """What was waited for has happened, but the block ends before anybody hears of it."""
    leaves = asyncio.Event()

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    with cancel_on_disconnect(receive):
        leaves.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert not failures


async def test_another_cancellation_is_not_taken_for_a_client_that_left() -> None:
    """A server that ends cancels a task for good."""
    begun = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    async def work() -> None:
        with cancel_on_disconnect(receive):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
