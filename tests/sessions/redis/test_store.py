"""What a turn costs in Redis, what is stored there, and for how long."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
import redis
import structlog

from app.domain.conversation import SessionKey, SessionRecord
from app.sessions.redis.store import RedisSessionStore
from tests.redis_server import RedisServer
from tests.sessions.redis.conftest import OpenStore
from tests.sessions.redis.helpers import (
    ADA,
    BEN,
    append,
    asked,
    eventually,
    hold_and_leave,
    is_discreet,
    keep,
    keys_of,
    name_in_keys,
    only,
    session,
    texts_of,
)


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

    await store.load(ADA)  # the first time, the server learns the script
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
    await eventually(lambda: not [key for key in keys_of(redis_server, "session") if key.endswith(name_in_keys("ada"))])
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
        waiting = asyncio.create_task(hold_and_leave(store, SessionKey("al}{ice", "b:e}n")))
        await waiting
        await held.save(SessionRecord(session("ada", "Hi"), client_keeps_history=True))
    with redis_server.client() as client:
        keys = [key for key in client.keys("*") if key != "kimi:probe"]
    assert len({only(re.findall(r"\{(\w+)\}", key)) for key in keys}) == 1
    assert all(re.fullmatch(r"kimi:\{[0-9a-f]{32}\}:[a-z]+(:[0-9a-f]{32})?", key) for key in keys), keys


async def test_a_session_of_another_version_is_none(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """After an update was taken back, its sessions start anew instead of failing; the log says so without a text."""
    await keep(store, ADA, "a private text")
    key = only(keys_of(redis_server, "session"))
    with redis.Redis.from_url(redis_server.url) as client:
        token, _, data = client.get(key).partition(b"\n")
        with structlog.testing.capture_logs() as logs:
            for unreadable in (b"\x02" + data[1:], data[:20], b""):
                client.set(key, token + b"\n" + unreadable, keepttl=True)
                assert await store.load(ADA) is None
                assert await store.sessions_of("alice") == []
                async with store.hold(ADA) as held:
                    assert held.record == SessionRecord()
        # Once: what is read a thousand times doesn't fill the log.
        assert [line["event"] for line in logs] == ["session.unreadable"]
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
    is_discreet(refusal.value, "pass-word", "ss-word", "pa/", "no_such_option")


def test_a_prefix_with_a_brace_is_refused() -> None:
    """It would take the place of the caller's hash tag."""
    with pytest.raises(ValueError, match="brace"):
        RedisSessionStore(
            "redis://h", max_sessions_per_caller=1, time_to_live=1, lock_wait=1, lock_ttl=1, key_prefix="{k}"
        )
