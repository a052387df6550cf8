"""What every store of snapshots promises, whatever it keeps them in."""

from collections.abc import AsyncIterator, Callable

import pytest

from app.domain.errors import SessionStoreUnavailable
from app.sessions.base import SnapshotKey, SnapshotStore
from app.sessions.memory import MemorySnapshotStore
from app.sessions.redis.store import RedisSessionStore
from tests import redis_server as servers
from tests.clock import Clock
from tests.redis_server import RedisServer

shared_redis, redis_server = servers.shared_redis, servers.redis_server

OpenSnapshots = Callable[[int], SnapshotStore]

ADA, BEN = SnapshotKey("alice", "resp_a"), SnapshotKey("alice", "resp_b")


def _sessions(server: RedisServer) -> RedisSessionStore:
    return RedisSessionStore(
        server.url, max_sessions_per_caller=10, time_to_live=60, lock_wait=30, lock_ttl=15, command_timeout=10
    )


@pytest.fixture(params=["memory", "redis"])
async def open_snapshots(request: pytest.FixtureRequest) -> AsyncIterator[OpenSnapshots]:
    """Opens a store for so many snapshots."""
    if request.param == "memory":
        yield lambda most: MemorySnapshotStore(max_snapshots=most, time_to_live=60)
        return
    sessions = _sessions(request.getfixturevalue("redis_server"))
    yield lambda most: sessions.snapshots(max_snapshots_per_caller=most, time_to_live=60)
    await sessions.aclose()


async def test_what_is_kept_can_be_read_until_it_is_deleted(open_snapshots: OpenSnapshots) -> None:
    """A snapshot comes back byte by byte; deleted, it is gone, and deleting it again says so."""
    store = open_snapshots(10)
    await store.save(ADA, b"\x00\xff any bytes")
    assert await store.load(ADA) == b"\x00\xff any bytes"
    assert await store.load(BEN) is None
    assert await store.delete(ADA)
    assert await store.load(ADA) is None
    assert not await store.delete(ADA)


async def test_no_caller_reaches_anothers_snapshot(open_snapshots: OpenSnapshots) -> None:
    """The id alone opens nothing: neither by reading nor by deleting."""
    store = open_snapshots(10)
    await store.save(ADA, b"secret")
    stranger = SnapshotKey("bob", ADA.snapshot_id)
    assert await store.load(stranger) is None
    assert not await store.delete(stranger)
    assert await store.load(ADA) == b"secret"


async def test_the_oldest_goes_first(open_snapshots: OpenSnapshots) -> None:
    """Beyond the most that are kept, new ones take the place of old ones."""
    store = open_snapshots(2)
    keys = [SnapshotKey("alice", f"resp_{number}") for number in range(3)]
    for key in keys:
        await store.save(key, b"x")
    assert [await store.load(key) for key in keys] == [None, b"x", b"x"]


async def test_memory_is_bounded_by_size_too() -> None:
    """Large snapshots are kept in smaller numbers, and one that no memory is left for is refused by name."""
    store = MemorySnapshotStore(max_snapshots=4, time_to_live=60)
    for number in range(4):
        await store.save(SnapshotKey("alice", str(number)), bytes(15 * 1024))
    assert sum([await store.load(SnapshotKey("alice", str(number))) is not None for number in range(4)]) == 2
    with pytest.raises(SessionStoreUnavailable, match="too large"):
        await store.save(ADA, bytes(64 * 1024))


async def test_snapshots_in_memory_expire(clock: Clock) -> None:
    """After its time to live a snapshot is gone."""
    store = MemorySnapshotStore(max_snapshots=4, time_to_live=60, clock=clock)
    await store.save(ADA, b"x")
    clock.now += 59
    assert await store.load(ADA) == b"x"
    clock.now += 2
    assert await store.load(ADA) is None


async def test_snapshots_in_redis_expire(redis_server: RedisServer) -> None:
    """Everything that is stored has a time to live, and the list of a caller's snapshots too."""
    sessions = _sessions(redis_server)
    await sessions.snapshots(max_snapshots_per_caller=4, time_to_live=60).save(ADA, b"x")
    with redis_server.client() as client:
        lives = {name: client.pttl(name) for name in client.scan_iter("kimi:*snapshot*")}
    assert len(lives) == 2
    assert all(0 < live <= 60_000 for live in lives.values())
    await sessions.aclose()


async def test_a_redis_that_is_away_is_named() -> None:
    """Nothing is said to be kept, missing or deleted while nobody knows."""
    sessions = RedisSessionStore(
        "redis://127.0.0.1:1/0", max_sessions_per_caller=10, time_to_live=60, lock_wait=1, lock_ttl=15
    )
    store = sessions.snapshots(max_snapshots_per_caller=4, time_to_live=60)
    with pytest.raises(SessionStoreUnavailable):
        await store.save(ADA, b"x")
    with pytest.raises(SessionStoreUnavailable):
        await store.load(ADA)
    with pytest.raises(SessionStoreUnavailable):
        await store.delete(ADA)
    await sessions.aclose()
