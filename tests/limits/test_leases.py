"""What workers lend each other through the store: nothing is lost for ever, and nobody hangs."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.domain.caller import Caller
from app.domain.chat import ChatCall
from app.domain.errors import LimitsUnavailable
from app.domain.granting import Claim, Exchanged
from app.domain.limits import read_limits
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.store import MemoryStore, StoreAway
from app.storage.database import Database
from tests.limits import world as worlds
from tests.limits.world import Fate, SimulatedWorker, World
from tests.loops import in_leaping_time

CALL = ChatCall("m", ())
ADA = Caller("ada", "ada", "")
Start = Callable[..., World]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A store that all tests use, one after the other."""
    database = worlds.make_database(tmp_path_factory.mktemp("world"))
    yield database
    database.close()


@pytest.fixture
def start(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes a world with three workers."""
    made: list[World] = []

    def make(wait: float = 1.0, without_store: str = "refuse", tolerance: float = 1.0, **limits: str) -> World:
        worlds.empty(database)
        world = World(database, worlds.limits_of(**limits), without_store, tolerance, wait)  # type: ignore[arg-type]
        worlds.use_clock(monkeypatch, lambda: world.now)
        for _ in range(3):
            world.add_worker()
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


def ask(world: World, worker: SimulatedWorker, key: str, count: int, seconds: float = 2.0) -> int:
    """How many of so many calls a worker lets in."""
    before = world.let_in[key]
    for _ in range(count):
        worker.call(key)
    world.advance(seconds)
    return world.let_in[key] - before


def end_all(world: World) -> None:
    """End all calls."""
    for worker in world.workers:
        for call in [*worker.running]:
            worker.end(call, 1)


def test_a_killed_workers_permits_are_there_again_after_a_while(start: Start) -> None:
    """Ten seconds at most."""
    world = start(p="5 at once")
    victim, other, _ = world.workers
    assert ask(world, victim, "p", 5) == 5
    world.kill(victim)
    world.advance(6.0)
    assert ask(world, other, "p", 5, 2.0) in (0, 5)
    end_all(world)
    assert ask(world, other, "p", 5, 0.5) == 5


@pytest.mark.parametrize("limit", ["30 requests/minute", "5 at once", "40 requests in total"])
def test_nothing_is_lost_for_ever(start: Start, limit: str) -> None:
    """Whatever got lost on the way, once all is quiet and refilled the last worker can use all that is left."""
    world = start(k=limit)
    fates = [
        Fate(is_answer_lost=True),
        Fate(is_lost=True),
        Fate(delay=5.0),
        Fate(repeated_after=3.0),
        Fate(delay=1.5, is_answer_lost=True),
    ]
    for turn in range(8):
        for place, worker in enumerate(world.workers):
            worker.fates.extend(fates[(turn + place) % 5 :][:2])
            for _ in range(2):
                worker.call("k")
        world.advance(1.5)
        for worker in world.workers:
            for call in worker.running[::2]:
                worker.end(call, 1 if turn % 2 else None)
    world.kill(world.workers[1])
    world.workers[0].is_paused = True
    world.advance(12.0)
    world.workers[0].is_paused = False
    end_all(world)
    world.advance(75.0, 0.1)
    used = world.used["requests/total"]
    amount = world.limit("k").amount
    last = world.workers[-1]
    let_in = sum(ask(world, last, "k", 1, 0.3) for _ in range(amount - used))
    assert let_in == amount - used


def test_what_others_keep_in_reserve_comes_within_a_second(start: Start) -> None:
    """A worker that holds free permits, or a part of a quota, hears that another one goes without."""
    world = start(p="4 at once", q="20 requests in total")
    one, two, _ = world.workers
    assert ask(world, one, "p", 4) == 4
    for call in one.running[:3]:
        one.end(call, 1)
    world.advance(1.0)
    assert ask(world, two, "p", 3) == 3
    for _ in range(8):
        assert ask(world, one, "q", 1, 0.5) == 1
        end_all(world)
    assert sum(ask(world, two, "q", 1) for _ in range(12)) == 12


def test_a_worker_that_ends_gives_everything_back(start: Start) -> None:
    """At once, and not only when it would have lapsed."""
    world = start(b="60 requests/minute", p="5 at once")
    one, two, _ = world.workers
    assert ask(world, one, "p", 5) == 5
    assert ask(world, one, "b", 20, 0.2) == 20
    world.stop(one)
    assert ask(world, two, "p", 5, 0.3) == 5
    assert ask(world, two, "b", 60, 0.3) >= 40


def test_a_large_call_is_not_starved_by_small_leases(start: Start) -> None:
    """Parts of it lie at no worker: the call that needs the whole limit gets it when it has refilled."""
    world = start(t="1000 tokens/minute")
    one, two, three = world.workers
    for worker in (one, two, three):
        task = worker.call("t", usage=300)
        world.advance(1.5)
        assert task.done()
    end_all(world)
    world.advance(61.0, 0.1)
    before = world.let_in["t"]
    two.call("t", usage=1000)
    world.advance(1.5)
    assert world.let_in["t"] == before + 1


def test_without_the_store_workers_keep_to_their_shares(start: Start) -> None:
    """Together they let in no more than the limit; afterwards what they used is taken into account."""
    world = start(0.0, "share", 2.0, b="60 requests/minute", p="6 at once")
    for worker in world.workers:
        ask(world, worker, "p", 1, 0.2)
    end_all(world)
    world.advance(3.0)  # now all know how many they are
    world.is_away = True
    world.advance(10.0)
    before = dict(world.let_in)
    for _ in range(60):
        for worker in world.workers:
            for key in ("b", "b", "p"):
                worker.call(key)
        world.advance(1.0, 0.1)
    assert world.let_in["p"] - before["p"] == 6
    # In 70 seconds, with those before it.
    assert 57 <= world.let_in["b"] - before.get("b", 0) <= 71
    world.is_away = False
    world.advance(3.0)
    end_all(world)
    # All of the shares was used: so there is nothing but what has refilled since.
    assert ask(world, world.workers[0], "b", 60, 0.5) <= 6


def test_without_the_store_nothing_is_let_in_where_that_is_wanted(start: Start) -> None:
    """What is held is used up, as long as it is valid; then calls are refused, and told to try again."""
    world = start(0.0, "refuse", b="60 requests/minute")
    one = world.workers[0]
    assert ask(world, one, "b", 20, 0.2) == 20
    world.is_away = True
    world.advance(9.0)
    assert ask(world, one, "b", 20, 0.2) == 0
    world.is_away = False
    world.advance(3.0)
    assert ask(world, one, "b", 20, 0.2) == 20


class _Broken:
    """A store whose code is at fault, until it isn't."""

    def __init__(self) -> None:
        self.fault: Exception | None = RuntimeError("a fault")
        self._store = MemoryStore(ZoneInfo("UTC"))

    async def exchange(self, claims: Sequence[Claim]) -> Exchanged:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return await self._store.exchange(claims)


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), KeyError("k"), StoreAway("away")])
def test_a_store_that_fails_leaves_nobody_waiting(fault: Exception) -> None:
    """Whatever it raises: calls get an answer, and the worker goes on asking."""

    async def work() -> None:
        store = _Broken()
        store.fault = fault
        leases = Leases(store)
        policy = LimiterPolicy(wait=1.0, without_store="refuse")
        limiter = Limiter(LimitBook(read_limits("5 at once")), leases, policy)
        for _ in range(3):
            with pytest.raises(LimitsUnavailable):
                await limiter.admit(CALL, ADA, "up", "m")
        store.fault = None
        await asyncio.sleep(2)
        assert await limiter.admit(CALL, ADA, "up", "m") is not None
        await leases.aclose()

    in_leaping_time(work())


def test_calls_that_wait_when_the_worker_ends_get_an_answer() -> None:
    """Nobody is left behind who waits for the store."""

    class Silent:
        async def exchange(self, claims: Sequence[Claim]) -> Exchanged:  # noqa: ARG002 - never answers
            await asyncio.Event().wait()
            raise AssertionError

    async def work() -> None:
        leases = Leases(Silent())
        policy = LimiterPolicy(wait=1.0, without_store="refuse")
        limiter = Limiter(LimitBook(read_limits("5 at once")), leases, policy)
        waiting = asyncio.create_task(limiter.admit(CALL, ADA, "up", "m"))
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(leases.aclose())
        with pytest.raises(LimitsUnavailable):
            await waiting
        closing.cancel()

    in_leaping_time(work())


def test_no_file_is_left_open(tmp_path: Path) -> None:
    """A world that was closed has no loops left."""
    database = worlds.make_database(tmp_path)
    world = World(database, worlds.limits_of(p="1 at once"))
    worker = world.add_worker()
    world.close()
    assert worker.loop.is_closed()
    database.close()
