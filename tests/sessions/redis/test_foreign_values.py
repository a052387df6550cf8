"""What others leave under the gateway's keys: it counts as missing, is logged without its content, and overwritten."""

import asyncio
import json
import zlib

import pytest
import redis
from structlog.testing import capture_logs

from app.domain.conversation import SessionRecord
from app.sessions.base import SnapshotKey
from app.sessions.redis import bounded_client
from app.sessions.redis.store import RedisSessionStore
from tests.redis_server import RedisServer
from tests.sessions.redis.conftest import OpenStore
from tests.sessions.redis.helpers import ADA, PATIENCE, append, keep, keys_of, name_in_keys, only, session, texts_of

PRIVATE = "a private text"
SNAPSHOT = SnapshotKey("alice", "resp_1")
CALLER = f"kimi:{{{bounded_client.digest('alice')}}}"
NAMES = ("session", "lock", "queue", "seen", "keeper")
KEYS = [f"{CALLER}:index", f"{CALLER}:fence", *(f"{CALLER}:{name}:{name_in_keys('ada')}" for name in NAMES)]

TYPES = {
    "a list": lambda client, key: client.rpush(key, PRIVATE),
    "a hash": lambda client, key: client.hset(key, PRIVATE, "1"),
    "a set": lambda client, key: client.sadd(key, PRIVATE),
    "a sorted set": lambda client, key: client.zadd(
        key, {PRIVATE: 5, "\udcff".encode("utf-8", "surrogateescape"): 9e99}
    ),
    "a stream": lambda client, key: client.xadd(key, {PRIVATE: "1"}),
    "a text": lambda client, key: client.set(key, PRIVATE),
    "another text": lambda client, key: client.set(key, "\n{}"),
    "a number": lambda client, key: client.set(key, 2**63 - 1),
    "a negative number": lambda client, key: client.set(key, -(2**63)),
    "nothing": lambda client, key: client.set(key, ""),
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.split(":")[2])
@pytest.mark.parametrize("kind", TYPES)
async def test_a_foreign_value_is_no_session(
    store: RedisSessionStore, redis_server: RedisServer, key: str, kind: str
) -> None:
    """Whatever another program wrote under whichever key: turns go on, and nothing is held for ever."""
    with redis.Redis.from_url(redis_server.url) as client, capture_logs() as lines:
        for ask in (
            lambda: store.load(ADA),
            lambda: store.sessions_of("alice"),
            lambda: keep(store, ADA, "one"),
            lambda: append(store, ADA, "two"),
            lambda: store.replace(ADA, SessionRecord(session("ada", "three"), client_keeps_history=True)),
            lambda: _delete(store),
        ):
            client.delete(key)
            TYPES[kind](client, key)
            async with asyncio.timeout(PATIENCE):
                await ask()
        client.flushdb()
    assert store.status() == "ready"
    assert {line["event"] for line in lines} <= {"session.unreadable", "session_store.ready"}
    assert [line["event"] for line in lines].count("session.unreadable") <= 1
    assert PRIVATE not in repr(lines)


async def _delete(store: RedisSessionStore) -> None:
    async with store.hold(ADA) as held:
        await held.delete()


async def test_what_waits_in_a_foreign_queue_holds_up_nobody(open_store: OpenStore, redis_server: RedisServer) -> None:
    """While a session is held, too: its next turn comes when it is released."""
    one, other = open_store(redis_server), open_store(redis_server)
    with redis_server.client() as client:
        async with one.hold(ADA):
            client.zadd(f"{CALLER}:queue:{name_in_keys('ada')}", {"nobody": 1, "nobody else": 2})
            waiting = asyncio.create_task(keep(other, ADA, "Hi"))
            await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE):
            await waiting
    assert await texts_of(one, ADA) == ["Hi"]


def _packed(value: object) -> bytes:
    return b"\x01j" + json.dumps(value).encode()


GOOD = {
    "id": "ada",
    "created": 0.0,
    "updated": 0.0,
    "system": [],
    "turns": [["user", "Hi"]],
    "last": {
        "fingerprint": "f",
        "key": None,
        "text": "Hello",
        "finish": "stop",
        "usage": [1, 2, 0, 0],
        "prompt": [1, 0, 0],
        "at": 0.0,
    },
}

VALUES = {
    "damaged": b"\x01j{",
    "cut off": b"\x01z" + zlib.compress(b"x" * 10_000)[:50],
    "a bomb": b"\x01z" + zlib.compress(b" " * 200 * 1024 * 1024),
    "of another version": b"\x02j{}",
    "deep": b"\x01j" + b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b"\x01j" + b'{"a":' * 100_000,
    "a list": _packed([]),
    "a text": _packed("ada"),
    "null": _packed(None),
    "a number of absurd length": b"\x01j" + b"1" * 10_000,
    "turns of numbers": _packed({**GOOD, "turns": [[1, 2]]}),
    "turns of a role that is none": _packed({**GOOD, "turns": [["king", "Hi"]]}),
    "turns of too many fields": _packed({**GOOD, "turns": [["user", "Hi", None, None, [], 1]]}),
    "turns that are none": _packed({**GOOD, "turns": {"user": "Hi"}}),
    "a time that is none": _packed({**GOOD, "updated": "now"}),
    "a time without end": b"\x01j" + json.dumps({**GOOD, "updated": float("inf")}).encode(),
    "an id that is none": _packed({**GOOD, "id": 5}),
    "a negative count": _packed({**GOOD, "last": {**GOOD["last"], "usage": [-1, 2]}}),  # type: ignore[dict-item]
    "too few counts": _packed({**GOOD, "last": {**GOOD["last"], "prompt": [1]}}),  # type: ignore[dict-item]
    "calls of numbers": _packed({**GOOD, "last": {**GOOD["last"], "calls": [[1, 2, 3]]}}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_of_another_form_is_no_session(
    store: RedisSessionStore, redis_server: RedisServer, name: str
) -> None:
    """It is missing for whoever reads it; the next turn puts things right."""
    await keep(store, ADA, "Hi")
    with redis.Redis.from_url(redis_server.url) as client, capture_logs() as lines:
        client.set(only(keys_of(redis_server, "session")), b"1:ab\n" + VALUES[name])
        assert await store.load(ADA) is None
        assert await store.sessions_of("alice") == []
        async with store.hold(ADA) as held:
            assert held.record == SessionRecord()
    assert [line["event"] for line in lines] == ["session.unreadable"]
    await append(store, ADA, "anew")
    assert await texts_of(store, ADA) == ["anew"]


async def test_the_form_that_is_expected_is_read(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """The values above are refused for their mistakes alone."""
    await keep(store, ADA, "Hi")
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(only(keys_of(redis_server, "session")), b"1:ab\n" + _packed(GOOD))
    assert await texts_of(store, ADA) == ["Hi"]


async def test_a_value_of_absurd_size_is_not_fetched(
    store: RedisSessionStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more of it than the largest session would have."""
    monkeypatch.setattr("app.sessions.redis.bounded_client.LONGEST_VALUE", 1000)
    monkeypatch.setattr("app.sessions.redis.store.LONGEST_VALUE", 1000)
    await keep(store, ADA, "Hi")
    with redis_server.client() as client, capture_logs() as lines:
        client.set(only(keys_of(redis_server, "session")), "x" * 50_000_000)
        before = client.info("stats")["total_net_output_bytes"]
        assert await store.load(ADA) is None
        assert await store.sessions_of("alice") == []
        async with store.hold(ADA) as held:
            assert held.record == SessionRecord()
        assert client.info("stats")["total_net_output_bytes"] - before < 100_000
    assert [(line["event"], line["reason"]) for line in lines] == [("session.unreadable", "too large")]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", [f"{CALLER}:snapshots", f"{CALLER}:snapshot:{name_in_keys('resp_1')}"])
async def test_a_foreign_value_is_no_snapshot(
    store: RedisSessionStore, redis_server: RedisServer, key: str, kind: str
) -> None:
    """Kept responses likewise."""
    snapshots = store.snapshots(max_snapshots_per_caller=2, time_to_live=60)
    with redis.Redis.from_url(redis_server.url) as client:
        TYPES[kind](client, key)
        await snapshots.load(SNAPSHOT)
        client.delete(key)
        TYPES[kind](client, key)
        await snapshots.delete(SNAPSHOT)
        client.delete(key)
        TYPES[kind](client, key)
        await snapshots.save(SNAPSHOT, b"kept")
    assert await snapshots.load(SNAPSHOT) == b"kept"
    assert store.status() == "ready"
