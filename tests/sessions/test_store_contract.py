"""What every session store promises, whatever it keeps sessions in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from app.domain.chat import Message, ToolCall, Usage
from app.domain.conversation import LastTurn, Session, SessionKey, SessionRecord
from app.domain.errors import SessionBusy
from app.sessions.base import SessionStore
from app.sessions.memory import MemorySessionStore
from app.sessions.redis.store import RedisSessionStore
from tests import redis_server as servers
from tests.redis_server import RedisServer

shared_redis, redis_server = servers.shared_redis, servers.redis_server

OpenStore = Callable[[float], SessionStore]

ADA, BEN = (SessionKey("alice", name) for name in ("ada", "ben"))
AWKWARD = (
    "\ud83d",
    "\ud83d\ude00",
    "\U0001f600",
    "\x00\r\n\u2028",
    "a:b{c}d",
    "}{",
    "*?[a-z]\\",
    "中文。" * 2000,
    " ",
    "e\u0301\u200d",
)


@pytest.fixture(params=["memory", "redis"])
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Opens a store whose requests wait for each other for so many seconds."""
    stores: list[SessionStore] = []
    server: RedisServer | None = request.getfixturevalue("redis_server") if request.param == "redis" else None

    def open_one(lock_wait: float) -> SessionStore:
        store: SessionStore
        if server is None:
            store = MemorySessionStore(max_sessions=1000, time_to_live=60, lock_wait=lock_wait)
        else:
            store = RedisSessionStore(
                server.url,
                max_sessions_per_caller=1000,
                time_to_live=60,
                lock_wait=lock_wait,
                lock_ttl=60,
                command_timeout=10,
            )
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def store(open_store: OpenStore) -> SessionStore:
    """A store with patient requests."""
    store = open_store(30)
    await store.start()
    return store


def session(session_id: str, *texts: str, updated_at: float = 0.0) -> Session:
    turns = tuple(Message("user", text) for text in texts)
    return Session(
        session_id, 0.0, updated_at, (), turns, LastTurn("f", None, "Hello", "stop", Usage(1, 2), 3, 4, 5, updated_at)
    )


async def keep(store: SessionStore, key: SessionKey, *texts: str, updated_at: float = 0.0) -> Session:
    kept = session(key.session_id, *texts, updated_at=updated_at)
    async with store.hold(key) as held:
        await held.save(SessionRecord(kept))
    return kept


async def append(store: SessionStore, key: SessionKey, text: str) -> None:
    """A turn as the service makes it: what was known, and one message more."""
    async with store.hold(key) as held:
        known = held.record.session
        texts = [message.text for message in known.turns] if known else []
        await asyncio.sleep(0)
        await held.save(SessionRecord(session(key.session_id, *texts, text)))


async def test_nothing_is_known_of_a_new_session(store: SessionStore) -> None:
    """A session that nobody has saved is empty, absent and not listed, even after it was held."""
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord()
    assert await store.load(ADA) is None
    assert await store.sessions_of("alice") == []


async def test_a_record_comes_back_as_it_was_saved(store: SessionStore) -> None:
    """Every field of a session survives: tools, names, systems, replays, fractions of a second."""
    messages = (
        Message("user", "What's the weather?", name="ada"),
        Message(
            "assistant", "", tool_calls=(ToolCall("call_1", "weather", '{"city":"Paris"}'), ToolCall("2", "x", ""))
        ),
        Message("tool", "Rain", tool_call_id="call_1"),
        Message("assistant", "It rains."),
    )
    last = LastTurn(
        "0f",
        "retry-1",
        "It rains.",
        "length",
        Usage(7, 8, 3, 4),
        900,
        1,
        2,
        1791231234.123456,
        messages[1].tool_calls,
        ";",
    )
    kept = Session("ada", 1791230000.5, 1791231234.123456, (Message("system", "Be brief."),), messages, last)
    async with store.hold(ADA) as held:
        await held.save(SessionRecord(kept, client_keeps_history=True))
    assert await store.load(ADA) == kept
    assert await store.sessions_of("alice") == [kept]
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(kept, client_keeps_history=True)


@pytest.mark.parametrize("text", AWKWARD)
async def test_any_text_survives(store: SessionStore, text: str) -> None:
    """Texts and ids may hold anything that a Python string can, lone surrogates included."""
    key = SessionKey(text, text[:256])
    kept = await keep(store, key, text, f"x{text}y")
    assert await store.load(key) == kept
    assert await store.sessions_of(text) == [kept]


async def test_no_key_reaches_another(store: SessionStore) -> None:
    """Callers and ids that look alike when they are put together are different sessions."""
    keys = [
        SessionKey(caller, session_id)
        for caller, session_id in (
            ("a", "b:c"),
            ("a:b", "c"),
            ("a:b:c", ""),
            ("", "a:b:c"),
            ("{a}", "b"),
            ("a", "{b}"),
            ("a", "b"),
            ("A", "b"),
            ("a", "b "),
            ("a", "b\x00"),
            ("a", "\ud83d"),
            ("a", "?"),
        )
    ]
    for number, key in enumerate(keys):
        await keep(store, key, str(number))
    for number, key in enumerate(keys):
        assert await store.load(key) == session(key.session_id, str(number))
    assert [found.id for found in await store.sessions_of("A")] == ["b"]
    async with store.hold(keys[0]) as held:
        await held.delete()
    assert [key for key in keys if await store.load(key) is None] == keys[:1]


async def test_a_turn_takes_the_place_of_the_one_before(store: SessionStore) -> None:
    """The last save counts, and a session is listed once."""
    await keep(store, ADA, "Hi")
    kept = await keep(store, ADA, "Hi", "again")
    assert await store.sessions_of("alice") == [kept]


async def test_a_record_can_be_replaced_whoever_holds_the_session(store: SessionStore) -> None:
    """Replacing waits for nobody and takes the session from nobody: the last to save wins."""
    replaced, kept = session("ada", "Hi", "all of it"), session("ada", "Hi", "again")
    async with store.hold(ADA) as held:
        await store.replace(ADA, SessionRecord(replaced, client_keeps_history=True))
        assert await store.load(ADA) == replaced
        await held.save(SessionRecord(kept))
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(kept, client_keeps_history=True)
    assert await store.sessions_of("alice") == [kept]


async def test_a_session_that_is_only_looked_at_stays_as_it_was(store: SessionStore) -> None:
    """Holding without saving changes nothing, whether it ends well or in an error."""
    kept = await keep(store, ADA, "Hi")
    async with store.hold(ADA):
        pass
    with pytest.raises(ZeroDivisionError):
        async with store.hold(ADA):
            raise ZeroDivisionError
    assert await store.load(ADA) == kept
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(kept)


async def test_a_deleted_session_is_gone(store: SessionStore) -> None:
    """Deleting says whether there was anything to delete."""
    await keep(store, ADA, "Hi")
    await keep(store, BEN, "Hi")
    async with store.hold(ADA) as held:
        assert await held.delete() is True
    async with store.hold(ADA) as held:
        assert await held.delete() is False
    assert await store.load(ADA) is None
    assert [found.id for found in await store.sessions_of("alice")] == ["ben"]


async def test_it_is_remembered_who_keeps_a_history(store: SessionStore) -> None:
    """The flag survives later turns that don't repeat it, and deleting; it says nothing about other sessions."""
    async with store.hold(ADA) as held:
        await held.save(SessionRecord(None, client_keeps_history=True))
    assert await store.load(ADA) is None
    assert await store.sessions_of("alice") == []
    kept = await keep(store, ADA, "Hi")
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(kept, client_keeps_history=True)
        await held.delete()
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(None, client_keeps_history=True)
    async with store.hold(BEN) as held:
        assert held.record == SessionRecord()


async def test_sessions_are_listed_for_their_caller_only_latest_first(store: SessionStore) -> None:
    """No caller sees another's sessions, and however many they are, all are listed."""
    for number in range(250):
        await keep(store, SessionKey("alice", str(number)), "Hi", updated_at=float(number))
    await keep(store, SessionKey("bob", "his"), "Hi")
    assert [found.id for found in await store.sessions_of("alice")] == [str(number) for number in reversed(range(250))]
    assert [found.id for found in await store.sessions_of("bob")] == ["his"]
    assert await store.sessions_of("carol") == []


async def test_requests_of_one_session_come_after_each_other_in_order(store: SessionStore) -> None:
    """Twenty requests of one session never overlap and are served as they came; another session's isn't held up."""
    served: list[int] = []
    inside = 0

    async def request(number: int) -> None:
        nonlocal inside
        async with store.hold(ADA):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            served.append(number)
            inside -= 1

    async with store.hold(ADA):
        requests = [asyncio.create_task(request(number)) for number in range(20)]
        await asyncio.sleep(0)
        async with store.hold(BEN):
            assert served == []
    await asyncio.gather(*requests)
    assert served == list(range(20))


async def test_no_turn_is_lost_among_many_at_once(store: SessionStore) -> None:
    """Requests that all add to one session at the same time all find their turn in it, once, in order."""
    await asyncio.gather(*(append(store, ADA, str(number)) for number in range(30)))
    kept = await store.load(ADA)
    assert kept is not None
    assert [message.text for message in kept.turns] == [str(number) for number in range(30)]


async def test_waiting_for_a_session_is_bounded(open_store: OpenStore) -> None:
    """Who waits for too long is told so and when to come again; the session isn't lost for others."""
    store = open_store(0.05)
    async with store.hold(ADA):
        for _ in range(3):
            with pytest.raises(SessionBusy) as refusal:
                async with store.hold(ADA):
                    raise AssertionError("the session was taken")
            assert refusal.value.retry_after
    assert await keep(store, ADA, "Hi") == await store.load(ADA)


async def test_who_stops_waiting_leaves_no_gap(store: SessionStore) -> None:
    """A cancelled wait doesn't hold up those who came later."""
    async with store.hold(ADA):
        first, second = (asyncio.create_task(append(store, ADA, name)) for name in ("first", "second"))
        await asyncio.sleep(0.05)
        first.cancel()
    await second
    assert await store.load(ADA) == session("ada", "second")
    assert first.cancelled()


async def test_a_cancelled_holder_frees_the_session(store: SessionStore) -> None:
    """A client that leaves in the middle of its turn leaves the session as it was, and free."""
    kept = await keep(store, ADA, "Hi")
    inside = asyncio.Event()

    async def abandoned() -> None:
        async with store.hold(ADA):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(abandoned())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(kept)


async def test_many_sessions_are_held_at_once(store: SessionStore) -> None:
    """Sessions don't wait for each other, however many are held."""
    async with AsyncExitStack() as stack:
        for number in range(100):
            held = await stack.enter_async_context(store.hold(SessionKey("alice", str(number))))
            await held.save(SessionRecord(session(str(number), "Hi")))
    assert len(await store.sessions_of("alice")) == 100


async def test_the_store_says_that_it_is_ready(store: SessionStore) -> None:
    """Once anything has been asked of it, a store knows how it is."""
    await store.load(ADA)
    assert store.status() == "ready"
    assert store.time_to_live == 60
