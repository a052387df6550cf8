"""Sessions in memory."""

import asyncio
from contextlib import AbstractContextManager, nullcontext

import pytest

from app.domain.chat import Message, Usage
from app.domain.conversation import LastTurn, Session, SessionKey, SessionRecord
from app.domain.errors import SessionBusy
from app.sessions.memory import MemorySessionStore
from tests.clock import Clock


@pytest.fixture
def store(clock: Clock) -> MemorySessionStore:
    """Two sessions at most, for 60 s."""
    return MemorySessionStore(max_sessions=2, time_to_live=60, lock_wait=30, clock=clock)


def record(session_id: str, updated_at: float = 0.0) -> SessionRecord:
    last = LastTurn("f", None, "Hello", "stop", Usage(1, 2), 2, 0, 0, updated_at)
    return SessionRecord(Session(session_id, 0.0, updated_at, (), (Message("user", "Hi"),), last))


ADA, BEN, CLEO = (SessionKey("alice", name) for name in ("ada", "ben", "cleo"))


async def keep(store: MemorySessionStore, key: SessionKey, kept: SessionRecord) -> None:
    async with store.hold(key) as held:
        await held.save(kept)


async def test_a_turn_gives_a_session_its_whole_time_again(store: MemorySessionStore, clock: Clock) -> None:
    """The time to live counts from the last turn, not from the first."""
    await keep(store, ADA, record("ada"))
    clock.now += 59
    await keep(store, ADA, record("ada"))
    clock.now += 59
    assert await store.load(ADA) is not None
    clock.now += 2
    assert await store.load(ADA) is None
    assert await store.sessions_of("alice") == []


async def test_the_session_unused_for_longest_makes_room(store: MemorySessionStore) -> None:
    """With the store full, a new session takes the place of the one that nobody has used for longest."""
    await keep(store, ADA, record("ada"))
    await keep(store, BEN, record("ben"))
    await store.load(ADA)
    await keep(store, CLEO, record("cleo"))
    assert await store.load(BEN) is None
    assert await store.load(ADA) is not None


async def test_it_is_remembered_who_keeps_a_history_after_the_session_is_gone(
    store: MemorySessionStore, clock: Clock
) -> None:
    """That a client keeps its own history outlives the session, and deleting it."""
    await keep(store, ADA, SessionRecord(record("ada").session, client_keeps_history=True))
    clock.now += 61
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(None, client_keeps_history=True)
        assert not await held.delete()


async def test_sessions_are_listed_for_their_caller_only_latest_first(store: MemorySessionStore) -> None:
    """No caller sees another's sessions."""
    await keep(store, SessionKey("alice", "old"), record("old", updated_at=1))
    await keep(store, SessionKey("alice", "new"), record("new", updated_at=2))
    assert [session.id for session in await store.sessions_of("alice")] == ["new", "old"]
    assert await store.sessions_of("bob") == []


async def test_only_a_request_that_waits_is_marked(clock: Clock) -> None:
    """The span of taking a session is opened by whoever finds it taken, and by nobody else."""
    spans: list[str] = []

    def trace(name: str) -> AbstractContextManager[object]:
        spans.append(name)
        return nullcontext()

    store = MemorySessionStore(max_sessions=2, time_to_live=60, lock_wait=30, clock=clock, trace=trace)
    async with store.hold(ADA):
        second = asyncio.create_task(keep(store, ADA, record("ada")))
        await asyncio.sleep(0)
        assert spans == ["session.take"]
    await second
    assert spans == ["session.take"]


async def test_waiting_for_a_session_is_bounded_and_leaves_no_lock_behind(clock: Clock) -> None:
    """Who waits too long is told so; a cancelled or refused wait leaves nothing in the store."""
    store = MemorySessionStore(max_sessions=2, time_to_live=60, lock_wait=0.001, clock=clock)
    async with store.hold(ADA):
        with pytest.raises(SessionBusy) as refusal:
            async with store.hold(ADA):
                raise AssertionError("the session was taken")
        assert refusal.value.retry_after
    assert store._lines == {}
    async with store.hold(ADA):
        pass
