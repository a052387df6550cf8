"""Sessions in Redis: what only a store outside of the process has to get right."""

import asyncio
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import structlog
from hypothesis import given
from hypothesis import strategies as st

import app
from app.domain.chat import Message, ToolCall, Usage
from app.domain.conversation import LastTurn, Session, SessionKey, SessionRecord
from app.domain.documents import UnreadableDocument
from app.domain.errors import SessionBusy, SessionStoreUnavailable
from app.sessions.encoding import decode, encode
from app.sessions.redis import bounded_client
from app.sessions.redis.store import RedisSessionStore
from tests import redis_server as servers
from tests.redis_server import PASSWORD, RedisServer

shared_redis, redis_server = servers.shared_redis, servers.redis_server
own_redis, persistent_redis = servers.own_redis, servers.persistent_redis

OpenStore = Callable[..., RedisSessionStore]

ADA, BEN, CLEO = (SessionKey("alice", name) for name in ("ada", "ben", "cleo"))
PATIENCE = 30.0


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens stores as different workers would; afterwards nothing may be left running."""
    stores: list[RedisSessionStore] = []

    def open_one(server: RedisServer | str, **options: Any) -> RedisSessionStore:
        url = server if isinstance(server, str) else server.url
        usual = {
            "max_sessions_per_caller": 1000,
            "time_to_live": 60,
            "lock_wait": PATIENCE,
            "lock_ttl": 60,
            "command_timeout": 10,
        }
        stores.append(RedisSessionStore(url, **(usual | options)))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.aclose()
        assert store._lines == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator["Wire"]:
    """An unreliable way to the shared server."""
    async with Wire(redis_server).running() as running:
        yield running


@pytest.fixture
def store(open_store: OpenStore, redis_server: RedisServer) -> RedisSessionStore:
    """A store on the shared server."""
    return open_store(redis_server)


def session(session_id: str, *texts: str, updated_at: float = 0.0) -> Session:
    turns = tuple(Message("user", text) for text in texts)
    last = LastTurn("f", None, "Hello", "stop", Usage(1, 2), 3, 4, 5, updated_at)
    return Session(session_id, 0.0, updated_at, (), turns, last)


async def keep(store: RedisSessionStore, key: SessionKey, *texts: str) -> Session:
    kept = session(key.session_id, *texts)
    async with store.hold(key) as held:
        await held.save(SessionRecord(kept))
    return kept


async def append(store: RedisSessionStore, key: SessionKey, text: str) -> None:
    async with store.hold(key) as held:
        known = held.record.session
        texts = [message.text for message in known.turns] if known else []
        await asyncio.sleep(0)
        await held.save(SessionRecord(session(key.session_id, *texts, text)))


async def texts_of(store: RedisSessionStore, key: SessionKey) -> list[str]:
    kept = await store.load(key)
    return [message.text for message in kept.turns] if kept else []


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.005)


async def until_it_works(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await ask()
            except SessionStoreUnavailable:
                await asyncio.sleep(0.005)
            else:
                return


def keys_of(server: RedisServer, pattern: str) -> list[str]:
    with server.client() as client:
        return sorted(client.keys(f"kimi:*:{pattern}:*"))


def only(keys: list[str]) -> str:
    (key,) = keys
    return key


def asked(server: RedisServer) -> int:
    """How many commands of the store the server has seen since it was asked to count."""
    with server.client() as client:
        counts = client.info("commandstats")
    return sum(counts.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "mget"))


# --- What a turn costs -----------------------------------------------------------------------------------------------


async def test_a_turn_takes_two_round_trips(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """One to take the session and read it, one to keep the turn and give it back; a look takes one, a list two."""
    await keep(store, ADA, "Hi")
    async with store.hold(ADA):
        pass

    async def cost(work: Callable[[], Awaitable[object]]) -> int:
        before = asked(redis_server)
        await work()
        return asked(redis_server) - before

    async def look_on() -> None:
        async with store.hold(ADA):
            pass

    async def forget() -> None:
        async with store.hold(ADA) as held:
            await held.delete()

    assert await cost(lambda: keep(store, ADA, "Hi")) == 2
    assert await cost(look_on) == 2
    assert await cost(lambda: store.load(ADA)) == 1
    await store.sessions_of("alice")
    assert await cost(lambda: store.sessions_of("alice")) == 2
    await forget()
    assert await cost(forget) == 2


async def test_a_server_that_has_forgotten_the_scripts_learns_them_again(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    """Scripts are sent by their digest; after a restart, or a flush, the text follows."""
    await keep(store, ADA, "Hi")
    with redis_server.client() as client:
        client.script_flush()
    await keep(store, ADA, "Hi", "again")
    assert await texts_of(store, ADA) == ["Hi", "again"]


async def test_a_session_can_be_given_back_once(store: RedisSessionStore) -> None:
    """Saving gives the lock back, so whoever saves twice in one hold has to be told."""
    async with store.hold(ADA) as held:
        await held.save(SessionRecord(session("ada", "Hi")))
        with pytest.raises(RuntimeError):
            await held.save(SessionRecord(session("ada", "Hi", "again")))
        with pytest.raises(RuntimeError):
            await held.delete()
    assert await texts_of(store, ADA) == ["Hi"]


async def test_the_next_one_needs_not_wait_for_a_slow_reader(store: RedisSessionStore) -> None:
    """With its turn saved, a request is through with the session, even if it isn't over yet."""
    async with store.hold(ADA) as held:
        await held.save(SessionRecord(session("ada", "Hi")))
        await append(store, ADA, "again")
    assert await texts_of(store, ADA) == ["Hi", "again"]


# --- How long things are kept ----------------------------------------------------------------------------------------


async def test_a_turn_gives_a_session_its_whole_time_again(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """The time to live counts from the last turn; the index lives as long as the sessions in it."""
    with redis_server.client() as client:
        for _ in range(2):
            await keep(store, ADA, "Hi")
            key = only(keys_of(redis_server, "session"))
            index = only(client.keys("kimi:*:index"))
            assert 50_000 < client.pttl(key) <= 60_000
            assert client.pttl(index) > 50_000
            client.pexpire(key, 20_000)
            client.pexpire(index, 20_000)
        async with store.hold(ADA):
            pass
        assert client.pttl(key) <= 20_000


async def test_an_expired_session_is_gone_from_the_list_too(open_store: OpenStore, redis_server: RedisServer) -> None:
    """Expired sessions are neither found nor listed, and the next look at the list cleans it."""
    short, long = open_store(redis_server, time_to_live=0.05), open_store(redis_server)
    await keep(short, ADA, "Hi")
    await keep(long, BEN, "Hi")
    await eventually(lambda: not [key for key in keys_of(redis_server, "session") if key.endswith(_id("ada"))])
    assert await short.load(ADA) is None
    assert [found.id for found in await long.sessions_of("alice")] == ["ben"]
    await asyncio.sleep(0.1)
    await short.sessions_of("alice")
    with redis_server.client() as client:
        assert client.keys("kimi:*:index") == []


async def test_who_keeps_a_history_is_remembered_for_longer(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    """The flag has a key of its own that outlives the session by weeks."""
    async with store.hold(ADA) as held:
        await held.save(SessionRecord(session("ada", "Hi"), client_keeps_history=True))
    with redis_server.client() as client:
        assert client.pttl(only(keys_of(redis_server, "keeper"))) > 29 * 24 * 3600 * 1000
        client.delete(only(keys_of(redis_server, "session")))
    async with store.hold(ADA) as held:
        assert held.record == SessionRecord(None, client_keeps_history=True)


async def test_each_caller_keeps_a_bounded_number_of_sessions(open_store: OpenStore, redis_server: RedisServer) -> None:
    """The oldest beyond the cap are deleted, with their keys; a session that is used again isn't old."""
    store = open_store(redis_server, max_sessions_per_caller=3)
    bobs = await keep(store, SessionKey("bob", "ada"), "Hi")
    for name in ("ada", "ben", "cleo", "ada", "dora", "emil"):
        await keep(store, SessionKey("alice", name), "Hi")
        await asyncio.sleep(0.002)
    assert {found.id for found in await store.sessions_of("alice")} == {"ada", "dora", "emil"}
    assert await store.load(BEN) is None
    assert await store.sessions_of("bob") == [bobs]
    assert len(keys_of(redis_server, "session")) == 4


async def test_everything_that_is_stored_expires(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """Nothing stays in the server for ever, not even what keeps the locks apart."""
    async with store.hold(BEN), store.hold(ADA) as held:
        await held.save(SessionRecord(session("ada", "Hi"), client_keeps_history=True))
        with redis_server.client() as client:
            lives = {key: client.pttl(key) for key in client.keys("*")}
    assert len(lives) == 5
    assert [key for key, left in lives.items() if left < 0] == []


async def test_the_keys_of_a_caller_share_a_hash_tag_and_hide_the_ids(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    """In a cluster they are on one node; no id can be read from a key."""
    async with store.hold(SessionKey("al}{ice", "a:d}a")) as held:
        waiting = asyncio.create_task(_hold_and_leave(store, SessionKey("al}{ice", "b:e}n")))
        await waiting
        await held.save(SessionRecord(session("ada", "Hi"), client_keeps_history=True))
    with redis_server.client() as client:
        keys = [key for key in client.keys("*") if key != "kimi:probe"]
    assert len({only(re.findall(r"\{(\w+)\}", key)) for key in keys}) == 1
    assert all(re.fullmatch(r"kimi:\{[0-9a-f]{32}\}:[a-z]+(:[0-9a-f]{32})?", key) for key in keys), keys


# --- Locks -----------------------------------------------------------------------------------------------------------


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
                assert _fence(client.get(lock)) > _fence(first)
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
    patient, hasty = open_store(redis_server, lock_ttl=1), open_store(redis_server, lock_ttl=1, lock_wait=2.5)
    async with patient.hold(ADA) as held:
        with pytest.raises(SessionBusy):
            await keep(hasty, ADA, "hasty")
        await held.save(SessionRecord(session("ada", "patient")))
    await append(hasty, ADA, "hasty")
    assert await texts_of(hasty, ADA) == ["patient", "hasty"]


async def test_a_holder_that_lost_its_lock_stops_renewing(open_store: OpenStore, redis_server: RedisServer) -> None:
    """The renewal ends with the lock, and never takes over a successor's."""
    store = open_store(redis_server, lock_ttl=0.1)
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


# --- Clients that leave ----------------------------------------------------------------------------------------------


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
    wire: "Wire", open_store: OpenStore, redis_server: RedisServer
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
    wire: "Wire", open_store: OpenStore, redis_server: RedisServer
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
    wire: "Wire", open_store: OpenStore, redis_server: RedisServer
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
    store = open_store(own_redis, command_timeout=0.3)

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


# --- A server in trouble ---------------------------------------------------------------------------------------------


async def test_starting_needs_no_server(open_store: OpenStore, own_redis: RedisServer) -> None:
    """A gateway starts without its Redis, says so, and is ready by itself once it is there."""
    own_redis.stop()
    store = open_store(own_redis)
    assert store.status() == "unavailable"
    await store.start()
    for ask in (lambda: store.load(ADA), lambda: store.sessions_of("alice"), lambda: keep(store, ADA, "Hi")):
        with pytest.raises(SessionStoreUnavailable) as refusal:
            await ask()
        assert refusal.value.retry_after
    assert store.status() == "unavailable"
    own_redis.start()
    await eventually(lambda: store.status() == "ready")
    await keep(store, ADA, "Hi")


async def test_nobody_waits_for_a_server_that_is_away(open_store: OpenStore, own_redis: RedisServer) -> None:
    """After the first failure all others are told at once; when the server answers again, so does the store."""
    store = open_store(own_redis, command_timeout=0.5)
    kept = await keep(store, ADA, "Hi")
    await asyncio.gather(*(store.load(ADA) for _ in range(10)))
    with own_redis.paused():
        async with asyncio.timeout(PATIENCE):
            for _ in range(1000):
                with pytest.raises(SessionStoreUnavailable):
                    await store.load(ADA)
                with pytest.raises(SessionStoreUnavailable):
                    await keep(store, ADA, "never")
        assert store.status() == "unavailable"
        # Whatever was connected to it may be a dead end.
        idle = store._server._pool._available_connections
        await eventually(lambda: not any(connection.is_connected for connection in idle))
    await eventually(lambda: store.status() == "ready")
    assert await store.load(ADA) == kept


async def test_a_restart_between_two_turns_goes_unnoticed(open_store: OpenStore, persistent_redis: RedisServer) -> None:
    """Connections that broke while nobody used them are replaced without an error."""
    store = open_store(persistent_redis)
    kept = await keep(store, ADA, "Hi")
    await asyncio.gather(*(store.load(ADA) for _ in range(10)))
    persistent_redis.restart()
    assert await asyncio.gather(*(store.load(ADA) for _ in range(10))) == [kept] * 10
    with persistent_redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await append(store, ADA, "again")
    assert await texts_of(store, ADA) == ["Hi", "again"]


async def test_a_turn_survives_a_restart_in_its_middle(open_store: OpenStore, persistent_redis: RedisServer) -> None:
    """A server that comes back with all it knew still knows who holds a session, and takes the turn."""
    store = open_store(persistent_redis)
    async with store.hold(ADA) as held:
        persistent_redis.kill()
        saving = asyncio.create_task(held.save(SessionRecord(session("ada", "Hi"))))
        await asyncio.sleep(0.02)
        persistent_redis.start()
        await saving
    assert await texts_of(store, ADA) == ["Hi"]
    assert keys_of(persistent_redis, "lock") == []


async def test_a_finished_turn_is_tried_even_while_others_are_told_to_wait(
    open_store: OpenStore, persistent_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store still takes the server for dead, a turn that took a minute isn't given up unasked."""
    monkeypatch.setattr(bounded_client, "FIRST_PAUSE", 3600.0)
    store = open_store(persistent_redis)
    async with store.hold(ADA) as held:
        persistent_redis.kill()
        with pytest.raises(SessionStoreUnavailable):
            await store.load(ADA)
        persistent_redis.start()
        with pytest.raises(SessionStoreUnavailable):
            await store.load(ADA)
        await held.save(SessionRecord(session("ada", "Hi")))
    assert await texts_of(store, ADA) == ["Hi"]


async def test_a_turn_is_refused_by_a_server_that_forgot_who_holds_the_session(
    open_store: OpenStore, own_redis: RedisServer
) -> None:
    """After a restart that lost everything, nobody knows whether another has taken the session: no silent guess."""
    store = open_store(own_redis)
    async with store.hold(ADA) as held:
        own_redis.restart()
        with pytest.raises(SessionStoreUnavailable, match="not saved"):
            await held.save(SessionRecord(session("ada", "Hi")))
    assert await store.load(ADA) is None


async def test_a_lost_reply_neither_loses_nor_doubles_a_turn(
    wire: "Wire", open_store: OpenStore, redis_server: RedisServer
) -> None:
    """Where the connection breaks after the server has done it, asking again finds it done."""
    store = open_store(wire.url)
    await keep(store, ADA, "Hi")
    wire.cut()
    async with store.hold(ADA) as held:
        wire.cut()
        await held.save(SessionRecord(session("ada", "Hi", "again")))
    assert await texts_of(store, ADA) == ["Hi", "again"]
    wire.cut()
    async with store.hold(ADA):
        wire.cut()
    assert keys_of(redis_server, "lock") == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"-READONLY You can't write against a read only replica.\r\n", "accepts no writes"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "out of memory"),
        (b"-NOAUTH Authentication required.\r\n", "credentials"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "credentials"),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n", "credentials"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "refuses"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "refuses"),
        (b"-MOVED 3999 10.20.30.40:6381\r\n", "refuses"),
        (b"-BUSY Redis is busy running a script.\r\n", "refuses"),
        (b"-ERR unknown command 'EVALSHA', with args beginning with: 'a-secret-text'\r\n", "refuses"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "can't be reached"),
        (b"*1\r\n", "in time"),
        (b"", "can't be reached"),
    ],
)
async def test_every_fault_of_the_server_ends_at_one_border(open_store: OpenStore, reply: bytes, said: str) -> None:
    """Whatever the server answers, the caller gets one kind of error that says why, without the server's words."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(reply)
            if not reply:
                break
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = open_store(f"redis://127.0.0.1:{port}", command_timeout=0.3)
        with pytest.raises(SessionStoreUnavailable, match=said) as refusal:
            await keep(store, ADA, "Hi")
        _is_discreet(refusal.value, str(port), "10.20.30.40", "secret", "dataset", "EVALSHA")
        await store.aclose()


async def test_a_full_server_and_a_replica_are_as_bad_as_none(open_store: OpenStore, own_redis: RedisServer) -> None:
    """A server that can't write isn't ready; when it can again, the store finds out by itself."""
    store = open_store(own_redis)
    await keep(store, ADA, "Hi")
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(SessionStoreUnavailable, match="out of memory"):
            await keep(store, ADA, "full")
        await eventually(lambda: client.info("commandstats")["cmdstat_set"]["rejected_calls"] >= 2)
        assert store.status() == "unavailable"
        client.config_set("maxmemory", 0)
        await eventually(lambda: store.status() == "ready")
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(SessionStoreUnavailable, match="accepts no writes"):
            await keep(store, ADA, "replica")
        assert store.status() == "unavailable"
        client.replicaof("NO", "ONE")
    await eventually(lambda: store.status() == "ready")
    assert await texts_of(store, ADA) == ["Hi"]


async def test_more_requests_than_connections_wait_for_one(open_store: OpenStore, redis_server: RedisServer) -> None:
    """A crowd is served over a bounded number of connections, and cancelled commands lose none of them."""
    store = open_store(redis_server)
    for _ in range(5):
        crowd = [asyncio.create_task(store.load(ADA)) for _ in range(200)]
        await asyncio.sleep(0.003)
        for task in crowd[::2]:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    assert await asyncio.gather(*(keep(store, SessionKey("alice", str(n)), "Hi") for n in range(200)))
    assert not store._server._pool._in_use_connections
    with redis_server.client() as client:
        # It takes a moment to notice those that were closed.
        await eventually(lambda: len(client.client_list()) <= bounded_client._CONNECTIONS + 1)


# --- Secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["wrong password", "no server"])
async def test_no_error_and_no_log_holds_the_password(
    open_store: OpenStore, own_redis: RedisServer, cause: str
) -> None:
    """Neither what is said, nor a traceback, nor the log tells where the server is or how to get in."""
    wrong = "wrong-horse-password"
    url = own_redis.url
    if cause == "wrong password":
        url = url.replace(PASSWORD, wrong)
    else:
        own_redis.stop()
    with structlog.testing.capture_logs() as logs:
        store = open_store(url)
        await store.start()
        with pytest.raises(SessionStoreUnavailable) as refusal:
            await keep(store, ADA, "a private text")
        await eventually(lambda: bool(logs))
    _is_discreet(refusal.value, PASSWORD, wrong, str(own_redis.port), "a private text")
    assert not re.search(f"{PASSWORD}|{wrong}|{own_redis.port}|private", repr(logs))
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["session_store.unavailable"]
    assert PASSWORD not in repr(store._server._pool)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/ss-word@host:6379",
        "http://user:pass-word@host",
        "redis://:pass-word@host:port",
        "redis://:pass-word@host?no_such_option=1",
        "redis://:pass-word@host?socket_timeout=pass-word",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_quoting_it(url: str) -> None:
    """A mistake in the URL is found at the start, and its password isn't shown."""
    with pytest.raises(ValueError, match="Redis URL") as refusal:
        RedisSessionStore(url, max_sessions_per_caller=1, time_to_live=1, lock_wait=1, lock_ttl=1)
    _is_discreet(refusal.value, "pass-word", "ss-word", "pa/", "no_such_option")


def test_a_prefix_with_a_brace_is_refused() -> None:
    """It would take the place of the caller's hash tag."""
    with pytest.raises(ValueError, match="brace"):
        RedisSessionStore(
            "redis://h", max_sessions_per_caller=1, time_to_live=1, lock_wait=1, lock_ttl=1, key_prefix="{k}"
        )


# --- Encoding --------------------------------------------------------------------------------------------------------

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


async def test_a_session_of_another_version_is_none(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """After an update was taken back, its sessions start anew instead of failing; the log says so without a text."""
    await keep(store, ADA, "a private text")
    key = only(keys_of(redis_server, "session"))
    with redis.Redis.from_url(redis_server.url) as client:
        token, _, data = client.get(key).partition(b"\n")
        for unreadable in (b"\x02" + data[1:], data[:20], b""):
            client.set(key, token + b"\n" + unreadable, keepttl=True)
            with structlog.testing.capture_logs() as logs:
                assert await store.load(ADA) is None
                assert await store.sessions_of("alice") == []
                async with store.hold(ADA) as held:
                    assert held.record == SessionRecord()
            assert {line["event"] for line in logs} == {"session.unreadable"}
            assert "private" not in repr(logs)
    await keep(store, ADA, "anew")
    assert await texts_of(store, ADA) == ["anew"]


async def test_large_sessions_are_kept_too(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """A session as large as sessions may become comes back as it was, and takes less room than its text."""
    kept = await keep(store, ADA, *("All work and no play. " * 500 for _ in range(20)))
    assert await store.load(ADA) == kept
    async with store.hold(ADA) as held:
        assert held.record.session == kept
    with redis_server.client() as client:
        assert client.strlen(only(keys_of(redis_server, "session"))) < kept.characters / 4


# --- Helpers ---------------------------------------------------------------------------------------------------------


def _id(session_id: str) -> str:
    return bounded_client.digest(session_id)


def _fence(token: object) -> int:
    return int(str(token).partition(":")[0])


async def _hold_and_leave(store: RedisSessionStore, key: SessionKey) -> None:
    async with store.hold(key):
        pass


def _is_discreet(error: BaseException, *secrets: str) -> None:
    """Nothing of the secrets is in the error, or in what a traceback would show besides lines of code."""
    chain = [error]
    while (
        cause := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
    ) is not None:
        chain.append(cause)
    shown = "".join(line for link in chain for line in traceback.format_exception_only(link)) + repr(vars(error))
    assert [secret for secret in secrets if secret in shown] == []


class Wire:
    """A way to the server that loses replies, or holds requests back, as a test wants it."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._lines: set[asyncio.Task[None]] = set()
        self._cuts = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.held_back = asyncio.Event()
        self.url = ""

    def cut(self) -> None:
        """Swallow the next reply and break its connection."""
        self._cuts += 1

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let the next request wait until the end of the context; those after it pass."""
        self._flowing.clear()
        self.held_back.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Wire", None]:
        """Carries as long as the context lasts."""
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            self.url = urlsplit(self._server.url)._replace(netloc=f":{PASSWORD}@127.0.0.1:{port}").geturl()
            yield self
            for line in self._lines:
                line.cancel()
            await asyncio.gather(*self._lines, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            while request := await reader.read(1 << 20):
                if not self._flowing.is_set() and not self.held_back.is_set():
                    self.held_back.set()
                    await self._flowing.wait()
                downstream.write(request)
                reply = await upstream.read(1 << 20)
                if self._cuts:
                    self._cuts -= 1
                    break
                writer.write(reply)
        finally:
            downstream.close()
            writer.close()
            self._lines.discard(task)
