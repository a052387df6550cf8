"""Workers, their network and their store in simulated time: the gateway's own code, with a clock that the tests move.

Each worker has an event loop of its own, so that it can be paused and killed, and its clock can show another time. What
it says to the store travels as a message that the tests may lose, hold up or repeat, each way. The store is
`app.storage.limits` on a real SQLite file; only its clock is the world's.
"""

import asyncio
import selectors
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Usage
from app.domain.errors import GatewayError
from app.domain.granting import LAPSE_SECONDS, QUOTA_LAPSE_SECONDS, Claim, Exchanged, Scope
from app.domain.limits import Limit, read_limit
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Admission, Limiter, LimiterPolicy, Without
from app.limits.store import StoreAway
from app.storage import limits as storage
from app.storage import tables
from app.storage.database import Database
from app.storage.limits import StaleMessage, Worker
from app.storage.rows import RequestRow
from app.storage.schema import migrate
from app.storage.spent import add_spent

UTC = ZoneInfo("UTC")
_TIMEOUT = 2.0
_TICK = 0.025
_LEDGER_PAUSE = 0.5
_ADOPTED_AFTER = 10.0


class _NeverWaiting(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - the world decides how long it takes
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that runs only when it is told to, by a clock of its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        super().__init__(_NeverWaiting())

    def time(self) -> float:
        return self._now()

    def step(self) -> None:
        """Run until nothing is ready."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]
                return


@dataclass
class Message:
    """What a worker says to the store."""

    number: int
    claims: Sequence[Claim]
    answer: "asyncio.Future[Exchanged]"


@dataclass
class Fate:
    """What becomes of the next messages of a worker.

    Args:
        delay: Seconds on the way to the store.
        is_lost: Whether it never gets there.
        is_answer_lost: Whether the answer never gets back.
        repeated_after: After so many seconds it gets there once more; 0 for never.
    """

    delay: float = 0.0
    is_lost: bool = False
    is_answer_lost: bool = False
    repeated_after: float = 0.0


class _Link:
    """A worker's way to the store. See `LimitStore`."""

    def __init__(self, world: "World", worker: "SimulatedWorker") -> None:
        self._world = world
        self._worker = worker

    async def exchange(self, claims: Sequence[Claim]) -> Exchanged:
        self._worker.messages += 1
        message = Message(self._worker.messages, claims, asyncio.get_running_loop().create_future())
        self._world.post(self._worker, message)
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await message.answer
        except TimeoutError:
            raise StoreAway("no answer") from None


@dataclass
class RunningCall:
    """A call that was let in."""

    limit: Limit
    admission: Admission
    reserved: int
    at: float
    is_ghost: bool = False


class SimulatedWorker:
    """A worker process.

    Args:
        lead: What its clock shows more than the world's.
    """

    def __init__(self, world: "World", name: str, lead: float, without_store: Without) -> None:
        self.world = world
        self.name = name
        self.lead = lead
        self.loop = _Loop(lambda: world.now + self.lead)
        self.identity = Worker(name, "here", "1", round(world.now * 1000))
        self.messages = 0
        self.heard_at = world.now
        self.fates: deque[Fate] = deque()
        self.is_paused = False
        self.running: list[RunningCall] = []
        self.failures: list[BaseException] = []
        self.lines: list[RequestRow] = []
        self.written = 0
        self.book = LimitBook(fixed=dict(world.limits))
        self.leases = Leases(_Link(world, self), workers=len(world.workers) + 1, written=lambda: self.written)
        policy = LimiterPolicy(wait=world.wait, without_store=without_store)
        self.limiter = Limiter(self.book, self.leases, policy, line=lambda: len(self.lines))
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop.set_exception_handler(self._failed)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start something in the worker."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def call(self, key: str, *, usage: int | None = None) -> asyncio.Task[None]:
        """A request with a key, which lasts until it is ended.

        Args:
            usage: What it reserves at most, of a limit of tokens.
        """
        return self.spawn(self._admit(key, usage))

    def end(self, call: RunningCall, used: int | None) -> None:
        """End a call; None if no word came."""
        self.running.remove(call)
        self.loop.call_soon(self._end, call, used)
        self.step()

    def _end(self, call: RunningCall, used: int | None) -> None:
        # What was used is in the journal first, as it is in a real call.
        charged = None if used is None else Usage(0, used)
        if charged is not None:
            self.world.count_used(self, call.limit, used or 0)
        if call.limit.measure == "tokens":
            self.world.note_flow(call.limit, (used or 0) - call.reserved)
        call.admission.settle(charged, counts=True)

    def step(self) -> None:
        """Let it do what is to be done by now."""
        if not self.is_paused:
            self.loop.step()

    def close(self) -> None:
        """End it at once, without a word."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.step()
        self.loop.close()

    async def _admit(self, key: str, usage: int | None) -> None:
        call = ChatCall("m", (), max_tokens=usage)
        try:
            admission = await self.limiter.admit(call, Caller(key, key, ""), "up", "m")
        except GatewayError:
            self.world.refused[key] += 1
            return
        assert admission is not None
        limit = self.book.of(Scope("key", key))[0]
        reserved = admission._reserved[0]
        self.running.append(RunningCall(limit, admission, reserved, self.world.now))
        self.world.admitted(self, key, limit, reserved)

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or AssertionError(context["message"]))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failures.append(error)


@dataclass
class _Flow:
    """A bucket as it should be: what it would have if it were one."""

    level: float
    at: float
    lowest: float = 0.0


class WrongWorld(AssertionError):
    """More was let in than may be."""


@dataclass
class World:
    """All of it.

    Args:
        database: The store's, with its tables.
        limits: The limits of keys, one each.
        tolerance: How much more may be let in while the store is away: 1 for nothing.
        wait: Seconds that calls wait for room.
    """

    database: Database
    limits: dict[Scope, tuple[Limit, ...]]
    without_store: Without = "refuse"
    tolerance: float = 1.0
    wait: float = 0.0
    now: float = 1_000_000.0
    workers: list[SimulatedWorker] = field(default_factory=list)
    refused: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    let_in: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    is_away: bool = False
    _count: int = 0
    _post: list[tuple[float, SimulatedWorker, Message, bool]] = field(default_factory=list)
    _flows: dict[str, _Flow] = field(default_factory=dict)
    _most: dict[str, int] = field(default_factory=dict)
    _adopted: list[tuple[float, SimulatedWorker]] = field(default_factory=list)
    _ledger_at: float = 0.0
    used: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add_worker(self, lead: float = 0.0) -> SimulatedWorker:
        """Start a worker."""
        self._count += 1
        worker = SimulatedWorker(self, f"w{self._count}", lead, self.without_store)
        self.workers.append(worker)
        return worker

    def kill(self, worker: SimulatedWorker) -> None:
        """End a worker at once. What it has in its journal is adopted after a while."""
        self.workers.remove(worker)
        worker.close()
        self._adopted.append((self.now + _ADOPTED_AFTER, worker))

    def stop(self, worker: SimulatedWorker) -> None:
        """End a worker in good order, once its calls have ended."""
        for call in [*worker.running]:
            worker.end(call, 1)
        self._carry(worker)
        closing = worker.loop.create_task(worker.leases.aclose())
        begin = self.now
        while not closing.done() and self.now < begin + 5:
            self.advance(_TICK)
        self.kill(worker)

    def limit(self, key: str) -> Limit:
        """The limit of a key."""
        (limit,) = self.limits[Scope("key", key)]
        return limit

    def change(self, key: str, amount: int) -> None:
        """Set another limit; the workers know it."""
        scope = Scope("key", key)
        (old,) = self.limits[scope]
        limit = Limit(amount, old.measure, old.window)
        self.limits[scope] = (limit,)
        for worker in self.workers:
            worker.book.set_stored({scope: of[0].text for scope, of in self.limits.items()})
        flow = self._flows.get(key)
        most = max(self._most.get(key, old.amount), amount, old.amount)
        if flow is not None:
            flow.level += most - self._most.get(key, old.amount)
        self._most[key] = most

    def advance(self, seconds: float, tick: float = _TICK) -> None:
        """Let time pass, in so small steps."""
        end = self.now + seconds
        self._step()
        while self.now < end - 1e-9:
            self.now = min(self.now + tick, end)
            self._step()

    def post(self, worker: SimulatedWorker, message: Message) -> None:
        """Take a worker's message."""
        fate = worker.fates.popleft() if worker.fates else Fate()
        if fate.is_lost:
            return
        self._post.append((self.now + fate.delay, worker, message, not fate.is_answer_lost))
        if fate.repeated_after:
            self._post.append((self.now + fate.delay + fate.repeated_after, worker, message, False))

    def admitted(self, worker: SimulatedWorker, key: str, limit: Limit, amount: int) -> None:
        """Look whether a call may be let in that was."""
        self.let_in[key] += 1
        most = self._most.setdefault(key, limit.amount)
        if limit.kind == "bucket":
            self.note_flow(limit, amount, key)
        elif limit.kind == "permits":
            self._mark_ghosts(LAPSE_SECONDS)
            at_once = sum(self._counting(one, limit) for one in self.workers)
            if at_once > most * self.tolerance:
                raise WrongWorld(f"{at_once} at once of {most}, after a call at {worker.name}")
        else:
            self._mark_ghosts(QUOTA_LAPSE_SECONDS)
            running = sum(self._counting(one, limit) for one in self.workers)
            if self.used[limit.name] + running > most * self.tolerance:
                raise WrongWorld(f"{self.used[limit.name]} used and {running} running of {most}")

    def note_flow(self, limit: Limit, amount: float, key: str = "") -> None:
        """Take something out of the bucket as it should be, or put it back."""
        key = key or next(scope.name for scope, (one,) in self.limits.items() if one.name == limit.name)
        most = self._most.setdefault(key, limit.amount) * self.tolerance
        flow = self._flows.setdefault(key, _Flow(most, self.now))
        rate = most / limit.seconds
        flow.level = min(flow.level + (self.now - flow.at) * rate, most)
        flow.at = self.now
        # What calls use beyond their reservation nobody can foresee: it may make a debt. Calls let in may not.
        flow.level = min(flow.level - amount, most)
        if amount > 0 and flow.level < -0.01 - rate * 0.003 and limit.measure == "requests":
            raise WrongWorld(f"{-flow.level:.2f} more than {limit.text} and what was refilled")
        flow.lowest = min(flow.lowest, flow.level)

    def count_used(self, worker: SimulatedWorker, limit: Limit, tokens: int) -> None:
        """Write a call into its worker's journal."""
        key = next(scope.name for scope, (one,) in self.limits.items() if one.name == limit.name)
        row = RequestRow(
            1, len(worker.lines), "", key, "", "m", "m", True, "up", "", "completed", None, 200, False, 1, tokens, 0,
            False, 1, None, None, None, 0, None,
        )  # fmt: skip
        worker.lines.append(row)
        if limit.kind == "quota":
            self.used[limit.name] += 1

    def _counting(self, worker: SimulatedWorker, limit: Limit) -> int:
        return sum(not call.is_ghost for call in worker.running if call.limit.name == limit.name)

    def _mark_ghosts(self, lapse: float) -> None:
        """What was let in by a worker that wasn't heard of for so long since isn't the store's business any more.

        What it lets in after that is: then it must not let in anything.
        """
        for worker in self.workers:
            if self.now - worker.heard_at > lapse:
                for call in worker.running:
                    is_permit = call.limit.kind == "permits"
                    if is_permit == (lapse == LAPSE_SECONDS) and call.at <= worker.heard_at + lapse:
                        call.is_ghost = True

    def _step(self) -> None:
        for worker in [*self.workers]:
            worker.step()
        self._deliver()
        for worker in [*self.workers]:
            worker.step()
            if worker.failures:
                raise worker.failures[0]
        if self.now >= self._ledger_at + _LEDGER_PAUSE and not self.is_away:
            self._ledger_at = self.now
            for worker in self.workers:
                if not worker.is_paused:
                    self._carry(worker)
            for at, worker in [*self._adopted]:
                if at <= self.now:
                    self._adopted.remove((at, worker))
                    self._carry(worker)

    def _deliver(self) -> None:
        due = [one for one in self._post if one[0] <= self.now]
        self._post = [one for one in self._post if one[0] > self.now]
        for _, worker, message, is_answered in due:
            if self.is_away:
                continue
            try:
                with self.database.transaction() as connection:
                    answer = storage.exchange(
                        self.database, connection, worker.identity, message.number, message.claims
                    )
            except StaleMessage:
                continue
            if worker in self.workers:
                # Whoever was not heard for so long is a ghost, even if it is heard now.
                self._mark_ghosts(LAPSE_SECONDS)
                self._mark_ghosts(QUOTA_LAPSE_SECONDS)
                worker.heard_at = self.now
                if is_answered and not message.answer.done():
                    message.answer.set_result(answer)

    def _carry(self, worker: SimulatedWorker) -> None:
        rows = worker.lines[worker.written :]
        if rows:
            with self.database.transaction() as connection:
                add_spent(self.database, connection, rows, [0] * len(rows), UTC)
            worker.written += len(rows)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()


def make_database(folder: Path) -> Database:
    """A store with its tables."""
    database = Database(f"sqlite:///{folder}/world.db", timeout=5)
    migrate(database)
    return database


def empty(database: Database) -> None:
    """Forget everything in a store."""
    with database.transaction() as connection:
        for table in (tables.buckets, tables.leases, tables.workers, tables.spent, tables.boots):
            connection.execute(delete(table))


def use_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """Let the store's clock be the world's."""
    monkeypatch.setattr(storage, "_clock", lambda *_: round(now() * 1000))


def limits_of(**texts: str) -> dict[Scope, tuple[Limit, ...]]:
    """Limits of keys, by their names."""
    return {Scope("key", key): (read_limit(text),) for key, text in texts.items()}
