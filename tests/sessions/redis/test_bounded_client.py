"""A Redis in trouble, and what is said about it."""

import asyncio
import re

import pytest
import structlog

from app.domain.conversation import SessionKey, SessionRecord
from app.domain.errors import SessionStoreUnavailable
from app.sessions.redis import bounded_client
from app.sessions.redis.store import RedisSessionStore
from tests.redis_server import PASSWORD, RedisServer
from tests.sessions.redis.conftest import OpenStore
from tests.sessions.redis.helpers import (
    ADA,
    PATIENCE,
    append,
    eventually,
    is_discreet,
    keep,
    keys_of,
    session,
    texts_of,
)
from tests.sessions.redis.wire import Wire


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
    store = open_store(own_redis, command_timeout=1)
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
    wire: Wire, open_store: OpenStore, redis_server: RedisServer
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
        store = open_store(f"redis://127.0.0.1:{port}", command_timeout=0.5 if said == "in time" else 10)
        with pytest.raises(SessionStoreUnavailable, match=said) as refusal:
            await keep(store, ADA, "Hi")
        is_discreet(refusal.value, str(port), "10.20.30.40", "secret", "dataset", "EVALSHA")
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
    is_discreet(refusal.value, PASSWORD, wrong, str(own_redis.port), "a private text")
    assert not re.search(f"{PASSWORD}|{wrong}|{own_redis.port}|private", repr(logs))
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["session_store.unavailable"]
    assert PASSWORD not in repr(store._server._pool)


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("redis://127.0.0.1:1/0", "can't be reached: connection refused"),
        ("redis://no-such-host.invalid/0", "can't be reached: name not found"),
        ("unix:///no/such.sock", "can't be reached: no such file or directory"),
        ("redis://:wrong@127.0.0.1:{port}/0", "refuses the gateway's credentials: invalid username-password pair"),
        ("redis://127.0.0.1:{port}/0", "refuses the gateway's credentials"),
        ("redis://:{password}@127.0.0.1:{port}/99", "refuses the gateway's commands: DB index is out of range"),
    ],
)
async def test_an_operator_learns_why_the_store_is_away(redis_server: RedisServer, address: str, fault: str) -> None:
    """The log and `fault` name the reason of the connection's end, without the password."""
    url = address.format(port=redis_server.port, password=PASSWORD)
    with structlog.testing.capture_logs() as lines:
        store = RedisSessionStore(url, max_sessions_per_caller=9, time_to_live=60, lock_wait=4, lock_ttl=2)
        with pytest.raises(SessionStoreUnavailable) as caught:
            await store.check()
        await store.aclose()
    assert store.fault().startswith(fault)
    assert [line["reason"] for line in lines if line["event"] == "session_store.unavailable"] == [store.fault()]
    assert PASSWORD not in f"{lines}{store.fault()}{caught.value}"


async def test_a_check_describes_a_server_that_works(redis_server: RedisServer) -> None:
    """Its version, and what of its settings might drop sessions."""
    client = redis_server.client()
    store = RedisSessionStore(redis_server.url, max_sessions_per_caller=9, time_to_live=60, lock_wait=4, lock_ttl=2)
    assert re.fullmatch(r"Redis \d+\.\d+\.\d+", await store.check())
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "allkeys-lru may drop sessions early" in await store.check()
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
        await store.aclose()
    assert store.fault() == ""
