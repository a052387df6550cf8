"""Limits hold whatever happens to workers, messages and the database; and the proof of that would notice if not.

A state machine drives several workers in simulated time (`tests.limits.world`). At every admission the world compares
with what one bucket, one count of permits or one quota would have let in. Then the same machine runs against code with
one fault each, and has to find it.
"""

import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from app.domain import granting
from app.limits import leases as leases_module
from app.limits.allowance import Allowance
from app.limits.leases import Leases
from app.storage import limits as storage
from app.storage.database import Database
from tests.limits import world as worlds
from tests.limits.world import Fate, World, WrongWorld

_LIMITS = {"bucket": "60 requests/minute", "permits": "3 at once", "quota": "60 requests in total"}
_WHICH = st.integers(0, 9)
_FATES = st.builds(
    Fate,
    delay=st.sampled_from([0.0, 0.3, 1.5, 5.0, 9.0]),
    is_lost=st.booleans(),
    is_answer_lost=st.booleans(),
    repeated_after=st.sampled_from([0.0, 0.5, 3.0]),
)
# Which limits are pressed against, and by how many requests at each worker, four times a second.
_LOADS = st.sampled_from(
    [
        {"bucket": 5, "permits": 2, "quota": 3},
        {"permits": 3, "bucket": 12},
        {"bucket": 0.1, "permits": 0.2, "quota": 0.1},
        {"bucket": 0.05, "permits": 3},
        {"permits": 1, "quota": 5},
    ]
)
_LOAD_PAUSE = 0.25
# A worker is paused: it uses all there is of permits, or has used it a moment ago.
_BEFORE = ["busy", "rested", "as it is"]
_EXAMPLES, _STEPS = 16, 10


class Machine(RuleBasedStateMachine):
    """Everything that can happen to workers and their store, while requests press against the limits."""

    database: ClassVar[Database]
    without_store: ClassVar[Any] = "refuse"
    tolerance: ClassVar[float] = 1.0
    patch: ClassVar[pytest.MonkeyPatch]
    most_workers = 4
    # What happens first; the rest is chance.
    first: ClassVar[Any] = None

    @initialize()
    def begin(self) -> None:
        worlds.empty(self.database)
        self.world = World(self.database, worlds.limits_of(**_LIMITS), self.without_store, self.tolerance)
        worlds.use_clock(self.patch, lambda: self.world.now)
        for number in range(3):
            self.world.add_worker(number * 50.0)
        self.load: dict[str, float] = {}
        self.turn = 0
        if self.first is not None:
            self.first(self)

    def _worker(self, which: int) -> worlds.SimulatedWorker:
        return self.world.workers[which % len(self.world.workers)]

    def _pass(self, seconds: float) -> None:
        """Let time pass, with requests that come and go."""
        end = self.world.now + seconds
        while self.world.now < end - 1e-9:
            self._press()
            self.world.advance(min(_LOAD_PAUSE, end - self.world.now))

    def _press(self) -> None:
        self.turn += 1
        for place, worker in enumerate(self.world.workers):
            if worker.is_paused:
                continue
            for call in worker.running[: (self.turn + place) % 4]:
                worker.end(call, None if self.turn % 5 == 0 else 1)
            for key, number in self.load.items():
                every = 1 if number >= 1 else round(1 / number)
                if (self.turn + place) % every == 0:
                    for _ in range(math.ceil(number)):
                        worker.call(key)

    @rule(load=_LOADS, seconds=st.sampled_from([0.5, 2.0, 5.0, 9.0]))
    def press(self, load: dict[str, float], seconds: float) -> None:
        self.load = load
        self._pass(seconds)

    @rule(calm=st.sampled_from([0.0, 60.0]), seconds=st.sampled_from([3.0, 8.0, 12.0]))
    def rest(self, calm: float, seconds: float) -> None:
        """All is refilled; a few calls come, then none, then they come everywhere at once."""
        self.load = {}
        self._end_all()
        self.world.advance(calm, 0.2)
        self.load = {"bucket": 0.1, "permits": 0.2}
        self._pass(3.0)
        self.load = {}
        self._pass(seconds)
        self._storm()

    @rule(which=_WHICH, seconds=st.sampled_from([1.0, 6.1, 7.0, 8.5, 12.0]), before=st.sampled_from(_BEFORE))
    def pause(self, which: int, seconds: float, before: str) -> None:
        """A worker stands still, others go on; afterwards it has requests at once, before it hears of anything."""
        worker = self._worker(which)
        if before != "as it is":
            self._alone(worker, leaves_running=before == "busy")
        worker.is_paused = True
        self._pass(seconds)
        self._storm()
        worker.is_paused = False
        for call in worker.running[:2]:
            worker.end(call, 1)
        for key in _LIMITS:
            for _ in range(3):
                worker.call(key)
        self.world.advance(0.05)
        self._storm()

    @rule(which=_WHICH, before=st.sampled_from(["busy", "rested"]))
    def lapse(self, which: int, before: str) -> None:
        """A pause for so long that the store gives to others what the worker has, who all want it."""
        self.load = {"bucket": 5, "permits": 3, "quota": 5}
        self.pause(which, 8.5, before)

    def _alone(self, worker: worlds.SimulatedWorker, *, leaves_running: bool) -> None:
        """A worker gets what it can, while no others have requests."""
        self._end_all()
        self.world.change("quota", self.world.limit("quota").amount + 10)
        for _ in range(6):
            for key in _LIMITS:
                worker.call(key)
            self.world.advance(_LOAD_PAUSE)
        if not leaves_running:
            for call in [*worker.running]:
                worker.end(call, 1)

    def _end_all(self) -> None:
        for worker in self.world.workers:
            for call in [*worker.running]:
                worker.end(call, 1)

    def _storm(self) -> None:
        """More requests at once than any limit allows; the calls of permits stay."""
        for _ in range(3):
            for worker in self.world.workers:
                for key, number in {"bucket": 30, "permits": 3, "quota": 8}.items():
                    for _ in range(0 if worker.is_paused else number):
                        worker.call(key)
            self.world.advance(_LOAD_PAUSE)

    @rule(which=_WHICH, fates=st.lists(_FATES, min_size=1, max_size=4))
    def trouble(self, which: int, fates: list[Fate]) -> None:
        self._worker(which).fates.extend(fates)
        self._pass(1.0)

    @rule(which=_WHICH, seconds=st.sampled_from([0.4, 1.5]))
    def repeat(self, which: int, seconds: float) -> None:
        """What a worker said before it got more comes to the store once more, when it has all there is."""
        worker = self._worker(which)
        self._end_all()
        worker.fates.append(Fate(repeated_after=seconds))
        for _ in range(3):
            for key in _LIMITS:
                worker.call(key)
            self.world.advance(0.1)
        self.world.advance(seconds)
        self._storm()

    @precondition(lambda self: len(self.world.workers) > 1)
    @rule(which=_WHICH, in_order=st.booleans())
    def end_worker(self, which: int, in_order: bool) -> None:
        worker = self._worker(which)
        (self.world.stop if in_order else self.world.kill)(worker)
        self._pass(0.5)

    @precondition(lambda self: len(self.world.workers) < self.most_workers)
    @rule(lead=st.sampled_from([-3600.0, 0.0, 7.0, 3600.0]))
    def start_worker(self, lead: float) -> None:
        self.world.add_worker(lead)
        self._pass(0.5)

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0]))
    def database_away(self, seconds: float) -> None:
        self.world.is_away = True
        self._pass(seconds)
        self.world.is_away = False
        self._pass(0.75)

    @rule(bucket=st.sampled_from([20, 40, 80]), permits=st.sampled_from([1, 3, 5]))
    def change(self, bucket: int, permits: int) -> None:
        self.world.change("bucket", bucket)
        self.world.change("permits", permits)
        self.world.change("quota", self.world.limit("quota").amount + 20)
        self._pass(0.5)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A store that all examples use, one after the other."""
    database = worlds.make_database(tmp_path_factory.mktemp("world"))
    yield database
    database.close()


def _run(database: Database, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int, **attributes: Any) -> None:
    monkeypatch.setattr(Machine, "database", database, raising=False)
    monkeypatch.setattr(Machine, "patch", monkeypatch, raising=False)
    for name, value in attributes.items():
        monkeypatch.setattr(Machine, name, staticmethod(value) if callable(value) else value)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_never_more_than_the_limits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens: within capacity and refill, never more at once, never more of a quota."""
    _run(database, monkeypatch, _EXAMPLES, _STEPS)


def test_never_more_than_twice_the_limits_while_the_database_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that keep to their shares while they hear nothing never let in more than twice as much together."""
    _run(database, monkeypatch, 10, _STEPS, without_store="share", tolerance=2.0)


def _patched_claims(change: Callable[[granting.Claim], granting.Claim]) -> Callable[..., Any]:
    original = Allowance.claim

    def claim(self: Allowance, *arguments: Any, **names: Any) -> granting.Claim:
        return change(original(self, *arguments, **names))

    return claim


def _granted_without_room(claim: granting.Claim, standing: granting.Standing, **said: Any) -> Any:
    """What a worker has held until now doesn't count any more."""
    return _GRANT(claim, replace(standing, held=0), **{**said, "own": 0})


def _refilled_twice(old: granting.Standing, claim: granting.Claim, held: int, since: int, now: int) -> float:
    once = _REFILLED(old, claim, held, since, now)
    return min(once + (now - old.at) / 1000 * claim.amount / claim.seconds, float(claim.amount - held))


def _held_by_nobody_else(*arguments: Any) -> Any:
    held = _HELD(*arguments)
    for one in held.values():
        one.others = 0
    return held


def _gives_back_twice(self: Allowance, now: float, workers: int, *, parting: bool = False) -> granting.Claim:
    before = self.free
    claim = _CLAIM(self, now, workers, parting=parting)
    if claim.back > 0:
        self.free = before
    return claim


def _granted_twice(self: Allowance, grant: granting.Grant, need: int, now: float) -> None:
    _GRANTED(self, replace(grant, granted=2 * grant.granted), need, now)


def _taken_without_asking(self: Leases, now: float) -> None:
    """What is held never lapses at the worker."""


_GRANT, _HELD, _REFILLED = granting.grant, storage._held, granting._refilled
_NUMBERS = count(1_000)
_CLAIM, _GRANTED = Allowance.claim, Allowance.granted
_EXCHANGE, _RELEASE, _VOID = storage.exchange, Allowance.release, Allowance.void


def _exchange_by_the_worker(database: Any, connection: Any, worker: Any, message: int, claims: Any) -> Any:
    """Each worker's own clock counts."""
    clock = storage._clock
    lead = {"w1": 0, "w2": 50_000, "w3": 100_000}.get(worker.id, 0)
    storage._clock = lambda *_: clock(database, connection) + lead
    try:
        return _EXCHANGE(database, connection, worker, message, claims)
    finally:
        storage._clock = clock


def _exchange_whenever(database: Any, connection: Any, worker: Any, message: int, claims: Any) -> Any:
    """No message is too old."""
    return _EXCHANGE(database, connection, worker, next(_NUMBERS), claims)


def _release_always(self: Allowance) -> None:
    self._lost = 0
    _RELEASE(self)


def _settle_quota_at_once(self: Allowance, reserved: int, *_: int) -> None:
    self.in_use -= reserved


def _void_nothing(self: Allowance, *, is_back: bool) -> bool:
    return True


# A line each that could be wrong, by what it does then. So that few examples are enough, each comes with what happens
# first: the machine finds all of them without, only later.
_FAULTS: dict[str, tuple[Any, str, Any]] = {
    "others' holdings don't count": (storage, "_held", _held_by_nobody_else),
    "a bucket refills although it is held": (storage, "grant", _granted_without_room),
    "a bucket refills twice as fast": (granting, "_refilled", _refilled_twice),
    "each worker's own clock counts": (storage, "exchange", _exchange_by_the_worker),
    "what comes late or twice counts like anything else": (storage, "exchange", _exchange_whenever),
    "workers never let go of what has lapsed": (Leases, "expire", _taken_without_asking),
    "workers let go too late": (leases_module, "_VALID_SECONDS", 30.0),
    "a worker that was taken for dead keeps what it had": (Allowance, "void", _void_nothing),
    "the store takes workers for dead too early": (storage, "LAPSE_SECONDS", 2.0),
    "the store forgets quotas too early": (storage, "QUOTA_LAPSE_SECONDS", 2.0),
    "what is given back is kept, too": (Allowance, "claim", _gives_back_twice),
    "what is granted counts twice": (Allowance, "granted", _granted_twice),
    "permits that others have got come back": (Allowance, "release", _release_always),
    "nothing is told to be held": (Allowance, "claim", _patched_claims(lambda claim: replace(claim, held=0))),
    "what is used of a quota is forgotten before the ledger knows": (
        Allowance,
        "settle_quota",
        _settle_quota_at_once,
    ),
}


_FIRST: dict[str, Callable[[Machine], None]] = {
    "a bucket refills although it is held": lambda machine: machine.rest(0.0, 8.0),
    "what is given back is kept, too": lambda machine: machine.rest(0.0, 12.0),
    "what comes late or twice counts like anything else": lambda machine: machine.repeat(0, 0.4),
    "workers never let go of what has lapsed": lambda machine: machine.lapse(0, "rested"),
    "workers let go too late": lambda machine: machine.lapse(0, "rested"),
    "a worker that was taken for dead keeps what it had": lambda machine: machine.lapse(0, "rested"),
    "permits that others have got come back": lambda machine: machine.lapse(0, "busy"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_the_machine_finds(fault: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in one line of the code is found by the machine that finds none in the code as it is."""
    monkeypatch.setattr(*_FAULTS[fault])
    with pytest.raises(WrongWorld):
        _run(database, monkeypatch, _EXAMPLES, _STEPS, first=_FIRST.get(fault))
