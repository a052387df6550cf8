"""Workers that want the same session."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import app
from app.domain.conversation import SessionRecord
from app.domain.errors import SessionBusy, SessionStoreUnavailable
from app.sessions.redis.store import RedisSessionStore
from tests.redis_server import RedisServer
from tests.sessions.redis.conftest import OpenStore
from tests.sessions.redis.helpers import (
    ADA,
    BEN,
    PATIENCE,
    append,
    eventually,
    fence_of,
    keep,
    keys_of,
    only,
    session,
    texts_of,
    until_it_works,
)
from tests.sessions.redis.wire import Wire


async def test_a_successor_s_turn_is_never_overwritten(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A holder whose lock has expired learns so when it saves; what the next holder has kept stands."""
    slow, quick = open_store(redis_server), open_store(redis_server)
    async with slow.hold(ADA) as held:
        with redis_server.client() as client:
            lock = only(keys_of(redis_server, "lock"))
            assert 0 < client.pttl(lock) <= 60_000
            first = client.get(lock)
            client.pexpire(lock, 1)
        await eventually(lambda: not keys_of(redis_server, "lock"))
        async with quick.hold(ADA) as successor:
            with redis_server.client() as client:
                assert fence_of(client.get(lock)) > fence_of(first)
            with pytest.raises(SessionStoreUnavailable, match="another request took the session over"):
                await held.save(SessionRecord(session("ada", "old")))
            await successor.save(SessionRecord(session("ada", "new")))
    assert await texts_of(slow, ADA) == ["new"]

    async with slow.hold(ADA) as held:
        with redis_server.client() as client:
            client.delete(lock)
        await keep(quick, ADA, "newer")
        with pytest.raises(SessionStoreUnavailable, match="another request took the session over"):
            await held.save(SessionRecord(session("ada", "old")))
    assert await texts_of(slow, ADA) == ["newer"]


async def test_a_late_holder_neither_deletes_nor_frees_what_is_not_its_own(
    open_store: OpenStore, redis_server: RedisServer
) -> None:
    """After a takeover, neither deleting nor leaving touches the successor's session or lock."""
    slow, quick = open_store(redis_server), open_store(redis_server)
    await keep(slow, ADA, "Hi")
    async with slow.hold(ADA) as held, slow.hold(BEN):
        with redis_server.client() as client:
            client.delete(*keys_of(redis_server, "lock"))
        async with quick.hold(ADA), quick.hold(BEN):
            with pytest.raises(SessionStoreUnavailable, match="lost"):
                await held.delete()
            locks = keys_of(redis_server, "lock")
            assert len(locks) == 2
    assert await texts_of(slow, ADA) == ["Hi"]


async def test_a_living_holder_keeps_its_lock(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A turn that takes several lives of a lock isn't disturbed: the lock is renewed."""
    patient, hasty = open_store(redis_server, lock_ttl=2), open_store(redis_server, lock_ttl=2, lock_wait=4.5)
    async with patient.hold(ADA) as held:
        with pytest.raises(SessionBusy):
            await keep(hasty, ADA, "hasty")
        await held.save(SessionRecord(session("ada", "patient")))
    await append(hasty, ADA, "hasty")
    assert await texts_of(hasty, ADA) == ["patient", "hasty"]


async def test_a_holder_that_lost_its_lock_stops_renewing(open_store: OpenStore, redis_server: RedisServer) -> None:
    """The renewal ends with the lock, and never takes over a successor's."""
    store = open_store(redis_server, lock_ttl=1)
    async with store.hold(ADA):
        await eventually(lambda: len(store._renewals) == 1)
        with redis_server.client() as client:
            lock = only(keys_of(redis_server, "lock"))
            client.set(lock, "another's", px=40_000)
            await eventually(lambda: not store._renewals)
            assert client.pttl(lock) > 20_000


async def test_a_killed_worker_s_session_is_free_again(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A process that is killed while it holds a session keeps it for no longer than its lock lives."""
    script = """
import asyncio, sys
from app.domain.conversation import SessionKey
from app.sessions.redis.store import RedisSessionStore

async def main():
    store = RedisSessionStore(sys.argv[1], max_sessions_per_caller=9, time_to_live=60, lock_wait=9, lock_ttl=1)
    async with store.hold(SessionKey("alice", "ada")):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, redis_server.url, cwd=Path(app.__path__[0]).parent, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await worker.stdout.readuntil(b"held\n")
    assert len(keys_of(redis_server, "lock")) == 1
    worker.kill()
    await worker.wait()
    await keep(open_store(redis_server), ADA, "Hi")
    assert keys_of(redis_server, "lock") == []


async def test_workers_take_turns(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A worker with many waiting requests doesn't keep the others from theirs."""
    busy, quiet = open_store(redis_server), open_store(redis_server)
    served: list[str] = []

    async def request(store: RedisSessionStore, name: str) -> None:
        async with store.hold(ADA):
            served.append(name)

    async with busy.hold(ADA):
        other = asyncio.create_task(request(quiet, "quiet"))
        await eventually(lambda: len(keys_of(redis_server, "queue")) == 1)
        crowd = [asyncio.create_task(request(busy, f"busy {number}")) for number in range(5)]
        await asyncio.sleep(0.01)
    await asyncio.gather(other, *crowd)
    assert served == ["quiet", *(f"busy {number}" for number in range(5))]
    assert keys_of(redis_server, "queue") == keys_of(redis_server, "seen") == []


async def test_a_worker_that_died_while_waiting_is_left_out(open_store: OpenStore, redis_server: RedisServer) -> None:
    """The place of one that no longer asks goes to the next."""
    store = open_store(redis_server)
    async with store.hold(ADA):
        waiting = asyncio.create_task(keep(store, ADA, "waited"))
        other = asyncio.create_task(keep(open_store(redis_server), ADA, "other"))
        await eventually(lambda: len(keys_of(redis_server, "queue")) == 1)
        with redis_server.client() as client:
            now = client.time()[0] * 1000
            client.zadd(only(keys_of(redis_server, "queue")), {"dead": now - 10_000})
            client.zadd(only(keys_of(redis_server, "seen")), {"dead": now - 10_000})
    await asyncio.gather(waiting, other)
    assert keys_of(redis_server, "queue") == []


async def test_who_gives_up_waiting_leaves_no_place_behind(open_store: OpenStore, redis_server: RedisServer) -> None:
    """Refused or cancelled, a waiting request gives its place in Redis' line back."""
    holder, hasty = open_store(redis_server), open_store(redis_server, lock_wait=0.03)
    cancelled = open_store(redis_server)
    async with holder.hold(ADA):
        with pytest.raises(SessionBusy):
            await keep(hasty, ADA, "hasty")
        await eventually(lambda: not keys_of(redis_server, "queue"))
        waiting = asyncio.create_task(keep(cancelled, ADA, "cancelled"))
        await eventually(lambda: len(keys_of(redis_server, "queue")) == 1)
        waiting.cancel()
        await eventually(lambda: not keys_of(redis_server, "queue"))
    assert keys_of(redis_server, "lock") == []


async def test_two_workers_lose_and_double_nothing(open_store: OpenStore, redis_server: RedisServer) -> None:
    """Fifty turns on one session by two workers: all are there, once, each worker's in its order."""
    one, two = open_store(redis_server), open_store(redis_server)

    async def work(store: RedisSessionStore, name: str) -> None:
        await asyncio.gather(*(append(store, ADA, f"{name}{number}") for number in range(25)))

    await asyncio.gather(work(one, "a"), work(two, "b"))
    texts = await texts_of(one, ADA)
    assert len(texts) == 50
    for name in "ab":
        assert [text for text in texts if text[0] == name] == [f"{name}{number}" for number in range(25)]


async def test_a_lock_whose_release_was_lost_is_released_soon(
    open_store: OpenStore, redis_server: RedisServer, wire: Wire
) -> None:
    """A connection that breaks when a turn ends keeps the session's next turn waiting for moments, not for the lock's
    life."""
    store = open_store(wire.url, lock_ttl=3600)
    async with store.hold(ADA):
        wire.break_down()
    assert len(keys_of(redis_server, "lock")) == 1
    wire.mend()
    await eventually(lambda: not keys_of(redis_server, "lock"))
    await until_it_works(lambda: keep(store, ADA, "Hi"))
    assert await texts_of(store, ADA) == ["Hi"]


async def test_a_turn_that_could_not_be_saved_does_not_keep_its_lock(
    open_store: OpenStore, redis_server: RedisServer, wire: Wire
) -> None:
    """Nor does one whose server was away for longer than a save is tried."""
    store = open_store(wire.url, lock_ttl=3600, command_timeout=1)
    async with store.hold(ADA) as held:
        wire.break_down()
        with pytest.raises(SessionStoreUnavailable):
            await held.save(SessionRecord(session("ada", "lost")))
    tried = wire.broken
    await eventually(lambda: wire.broken > tried + 4)
    wire.mend()
    await eventually(lambda: not keys_of(redis_server, "lock"))


async def test_a_release_is_not_tried_for_longer_than_the_lock_lives(open_store: OpenStore, wire: Wire) -> None:
    """Then it has expired by itself."""
    store = open_store(wire.url, lock_ttl=0.2, command_timeout=1)
    async with store.hold(ADA):
        wire.break_down()
    await eventually(lambda: not store._commands)


async def test_a_lock_that_survives_a_restart_is_released_after_it(
    open_store: OpenStore, persistent_redis: RedisServer
) -> None:
    """The server was away when the turn ended, and has kept the lock on its disk."""
    store = open_store(persistent_redis, lock_ttl=3600)
    async with store.hold(ADA):
        assert len(keys_of(persistent_redis, "lock")) == 1
        persistent_redis.kill()
    persistent_redis.start()
    await eventually(lambda: not keys_of(persistent_redis, "lock"))
    await until_it_works(lambda: keep(store, ADA, "Hi"))
