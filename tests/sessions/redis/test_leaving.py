"""Clients that leave while their session is taken, saved or given back."""

import asyncio

import pytest

from app.domain.conversation import SessionRecord
from app.domain.errors import SessionStoreUnavailable
from tests.redis_server import RedisServer
from tests.sessions.redis.conftest import OpenStore
from tests.sessions.redis.helpers import (
    ADA,
    append,
    eventually,
    keep,
    keys_of,
    session,
    texts_of,
    until_it_works,
)
from tests.sessions.redis.wire import Wire


@pytest.mark.parametrize("steps", range(0, 60, 2))
async def test_a_turn_is_kept_whole_or_not_at_all(open_store: OpenStore, redis_server: RedisServer, steps: int) -> None:
    """Whenever a client leaves, its turn is there with everything that belongs to it, or nothing is; never a lock."""
    store = open_store(redis_server)
    await keep(store, ADA, "old")

    async def turn() -> None:
        async with store.hold(ADA) as held:
            await held.save(SessionRecord(session("ada", "old", "new"), client_keeps_history=True))

    task = asyncio.create_task(turn())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    async with store.hold(ADA) as held:
        assert held.record in (
            SessionRecord(session("ada", "old")),
            SessionRecord(session("ada", "old", "new"), client_keeps_history=True),
        )
    assert len(await store.sessions_of("alice")) == 1
    assert keys_of(redis_server, "lock") == keys_of(redis_server, "queue") == []


async def test_a_turn_whose_saving_has_begun_is_kept(open_store: OpenStore, own_redis: RedisServer) -> None:
    """A client that leaves while the server takes its time to save loses nothing, and leaves no lock."""
    store = open_store(own_redis)
    await keep(store, ADA, "old")

    async def turn() -> None:
        async with store.hold(ADA) as held:
            saving.set()
            await held.save(SessionRecord(session("ada", "old", "new")))

    saving = asyncio.Event()
    with own_redis.paused():
        held_elsewhere = asyncio.create_task(turn())
        await asyncio.sleep(0.05)
        assert not saving.is_set()
    await saving.wait()
    with own_redis.paused():
        # Whether the save was answered before the pause or waits for its end, the client leaves now.
        await asyncio.sleep(0)
        held_elsewhere.cancel()
        await asyncio.sleep(0.05)
        held_elsewhere.cancel()
        await asyncio.wait([held_elsewhere])
    await until_it_works(lambda: append(store, ADA, "newest"))
    assert await texts_of(store, ADA) == ["old", "new", "newest"]


async def test_a_turn_is_kept_though_its_client_leaves_twice(
    wire: Wire, open_store: OpenStore, redis_server: RedisServer
) -> None:
    """A save that is still on its way isn't overtaken by giving the lock back."""
    store = open_store(wire.url)
    await keep(store, ADA, "old")
    saving = asyncio.Event()

    async def turn() -> None:
        async with store.hold(ADA) as held:
            saving.set()
            await asyncio.sleep(0)
            await held.save(SessionRecord(session("ada", "old", "new")))

    task = asyncio.create_task(turn())
    await saving.wait()
    with wire.stalled():
        await wire.held_back.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        assert task.done()
    await append(store, ADA, "newest")
    assert await texts_of(store, ADA) == ["old", "new", "newest"]
    assert keys_of(redis_server, "lock") == []


async def test_a_client_that_leaves_while_its_session_is_taken_leaves_no_lock(
    wire: Wire, open_store: OpenStore, redis_server: RedisServer
) -> None:
    """A lock that arrives when nobody wants it any more is given back, however late it comes."""
    store = open_store(wire.url)
    await keep(store, ADA, "Hi")
    with wire.stalled():
        task = asyncio.create_task(keep(store, ADA, "never"))
        await wire.held_back.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
    await append(store, ADA, "next")
    assert await texts_of(store, ADA) == ["Hi", "next"]
    await eventually(lambda: not keys_of(redis_server, "lock"))


async def test_a_client_that_leaves_twice_leaves_no_lock(
    wire: Wire, open_store: OpenStore, redis_server: RedisServer
) -> None:
    """Giving a session back goes on even when the one that gives it back is cancelled again."""
    store = open_store(wire.url)
    inside = asyncio.Event()

    async def turn() -> None:
        async with store.hold(ADA):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(turn())
    await inside.wait()
    with wire.stalled():
        task.cancel()
        await wire.held_back.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: not keys_of(redis_server, "lock"))


async def test_leaving_hides_no_error(open_store: OpenStore, own_redis: RedisServer) -> None:
    """A server that is away when a session is given back doesn't take the place of what went wrong before."""
    store = open_store(own_redis, command_timeout=1)

    async def fail(error: type[BaseException]) -> None:
        async with store.hold(ADA):
            own_redis.kill()
            raise error

    for error in (ZeroDivisionError, asyncio.CancelledError):
        with pytest.raises(error):
            await fail(error)
        own_redis.start()
        await until_it_works(lambda: store.load(ADA))


async def test_a_stop_waits_for_what_is_being_saved(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A store that is closed while a cancelled request's turn is on its way keeps it; then it refuses everything."""
    store = open_store(redis_server)
    async with store.hold(ADA) as held:
        task = asyncio.create_task(held.save(SessionRecord(session("ada", "Hi"))))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await store.aclose()
    with pytest.raises(SessionStoreUnavailable, match="shutting down"):
        await store.load(ADA)
    assert await texts_of(open_store(redis_server), ADA) == ["Hi"]
