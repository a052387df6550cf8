"""Limits hold whatever happens to workers, messages and the database; and the proof of that would notice if not.

A state machine drives several workers in simulated time (`tests.limits.world`). At every admission the world compares
with what one bucket, one count of permits or one quota would have let in. Then the same machine runs against code with
one fault each, and has to find it.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from app.storage.database import Database
from tests.limits import world as worlds
from tests.limits.world import Fate, World

_LIMITS = {"bucket": "40 requests/minute", "permits": "3 at once", "quota": "30 requests in total"}
_KEYS = st.sampled_from([*_LIMITS])
_WHICH = st.integers(0, 9)
_FATES = st.builds(
    Fate,
    delay=st.sampled_from([0.0, 0.3, 1.5, 5.0, 9.0]),
    is_lost=st.booleans(),
    is_answer_lost=st.booleans(),
    repeated_after=st.sampled_from([0.0, 0.5, 3.0]),
)


class Machine(RuleBasedStateMachine):
    """Everything that can happen to workers and their store."""

    database: ClassVar[Database]
    without_store: ClassVar[Any] = "refuse"
    tolerance: ClassVar[float] = 1.0
    patch: ClassVar[pytest.MonkeyPatch]
    most_workers = 4

    @initialize()
    def begin(self) -> None:
        worlds.empty(self.database)
        self.world = World(self.database, worlds.limits_of(**_LIMITS), self.without_store, self.tolerance)
        worlds.use_clock(self.patch, lambda: self.world.now)
        for number in range(3):
            self.world.add_worker(number * 50.0)
        self._touch()

    def _touch(self) -> None:
        """So that the store knows the workers."""
        for worker in self.world.workers:
            worker.call("permits")
        self.world.advance(0.1)
        for worker in self.world.workers:
            for call in [*worker.running]:
                worker.end(call, 1)

    def _worker(self, which: int) -> worlds.SimulatedWorker:
        return self.world.workers[which % len(self.world.workers)]

    @rule(which=_WHICH, key=_KEYS, count=st.integers(1, 25))
    def call(self, which: int, key: str, count: int) -> None:
        worker = self._worker(which)
        for _ in range(count):
            worker.call(key)
        self.world.advance(0.1)

    @rule(key=_KEYS, count=st.integers(1, 8))
    def call_everywhere(self, key: str, count: int) -> None:
        for worker in self.world.workers:
            for _ in range(count):
                worker.call(key)
        self.world.advance(0.1)

    @rule(which=_WHICH, count=st.integers(1, 6), has_answer=st.booleans())
    def end(self, which: int, count: int, has_answer: bool) -> None:
        worker = self._worker(which)
        if not worker.is_paused:
            for call in worker.running[:count]:
                worker.end(call, 1 if has_answer else None)

    @rule(seconds=st.sampled_from([0.2, 1.0, 2.5, 6.5, 9.0, 13.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(which=_WHICH, seconds=st.sampled_from([1.0, 6.1, 7.0, 8.5, 12.0]), count=st.integers(0, 6), key=_KEYS)
    def pause(self, which: int, seconds: float, count: int, key: str) -> None:
        """A worker stands still, others go on; afterwards it has requests at once, before it hears of anything."""
        worker = self._worker(which)
        worker.is_paused = True
        for other in self.world.workers:
            if other is not worker:
                for _ in range(count):
                    other.call(key)
        self.world.advance(seconds)
        for _ in range(count):
            worker.call(key)
        worker.is_paused = False
        self.world.advance(0.05)

    @rule(which=_WHICH, fates=st.lists(_FATES, max_size=4))
    def trouble(self, which: int, fates: list[Fate]) -> None:
        self._worker(which).fates.extend(fates)

    @rule(which=_WHICH)
    def kill(self, which: int) -> None:
        if len(self.world.workers) > 1:
            self.world.kill(self._worker(which))

    @rule(which=_WHICH)
    def stop(self, which: int) -> None:
        if len(self.world.workers) > 1:
            self.world.stop(self._worker(which))

    @precondition(lambda self: len(self.world.workers) < self.most_workers)
    @rule(lead=st.sampled_from([-3600.0, 0.0, 7.0, 3600.0]))
    def start(self, lead: float) -> None:
        self.world.add_worker(lead)

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0]), which=_WHICH, count=st.integers(0, 10), key=_KEYS)
    def database_away(self, seconds: float, which: int, count: int, key: str) -> None:
        self.world.is_away = True
        worker = self._worker(which)
        for _ in range(count):
            worker.call(key)
        self.world.advance(seconds)
        self.world.is_away = False
        self.world.advance(0.5)

    @rule(amounts=st.tuples(st.sampled_from([20, 40, 80]), st.sampled_from([1, 3, 5])))
    def change(self, amounts: tuple[int, int]) -> None:
        self.world.change("bucket", amounts[0])
        self.world.change("permits", amounts[1])

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
        monkeypatch.setattr(Machine, name, value)
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
    _run(database, monkeypatch, 40, 30)
