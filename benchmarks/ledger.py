"""Keys and ledger under load: what is lost or doubled, how soon changes count, what a database that is away costs.

    .venv/bin/python -m benchmarks.ledger [SCENARIO …]

Everything runs on this machine: a simulated site, a cluster of workers behind nginx, SQLite files and a PostgreSQL
server of the benchmark's own. Prints a row for each property, with its figure and its bound, and exits with 1 if a
bound is broken. All scenarios together take a quarter of an hour.
"""

import asyncio
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import uvloop
from msgspec.structs import replace
from sqlalchemy import text

from app.keys.administration import create_key, pause_key, resume_key, revoke_key, rotate_key, update_key
from app.storage.clock import now
from app.storage.database import Connection as Transaction
from app.storage.database import Database
from app.storage.keys import StoredKey
from app.storage.schema import migrate
from benchmarks.bounds import Row, Scenario, chosen, run
from benchmarks.callers import Call, Cluster, Connection, Crowd, cluster, until
from benchmarks.processes import ROOT
from benchmarks.soak import KEY
from benchmarks.writers import writers
from tests.databases import PostgresServer, running_postgres, wrong_sums

_LONGEST = 400.0
_CLIENTS = 24
_KEYS = 5
_KILLS = 15
_OUTAGE_SECONDS = 30.0
_FULL_BYTES = 64 * 1024
# Makes long lines, which fill a journal sooner.
_LONG_NAME = "模" * 200
_WINDOW_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """A database and a folder of a scenario's own.

    Args:
        server: The server that the database is on; None for SQLite.
    """

    kind: str
    folder: Path
    database: Database
    server: PostgresServer | None

    @property
    def url(self) -> str:
        """The database's address."""
        return self.database.url.render_as_string(hide_password=False)

    def key(self, name: str) -> tuple[StoredKey, str]:
        """A new key and its secret."""
        with self.database.transaction() as connection:
            new = create_key(connection, name=name)
        return new.key, new.secret

    def secrets(self) -> list[str]:
        """The secrets of new keys, and that of the environment's key."""
        return [KEY, *(self.key(f"key-{number}")[1] for number in range(_KEYS))]


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """A new database of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield from _place(kind, Path(folder), f"sqlite:///{folder}/gateway.db", None)
        else:
            with running_postgres() as server:
                yield from _place(kind, Path(folder), server.new_database(), server)


def _place(kind: str, folder: Path, url: str, server: PostgresServer | None) -> Iterator[Place]:
    database = Database(url, timeout=10)
    migrate(database)
    yield Place(kind, folder, database, server)
    database.close()


# ── What the ledger says ─────────────────────────────────────────────────────────────────────────────────────────────


def rows_by_request(database: Database) -> Counter[str]:
    """How many rows each request has."""
    with database.transaction(reads=True) as connection:
        return Counter(connection.execute(text("SELECT request_id FROM request")).scalars())


async def compared(name: str, database: Database, crowd: Crowd, lost: int = 0) -> list[Row]:
    """What clients were told, against what the ledger says once it has caught up."""
    answered = Counter(crowd.answered)
    await until(lambda: len(answered.keys() - rows_by_request(database).keys()) <= lost, 60)
    rows = rows_by_request(database)
    print(f"{name}: {dict(crowd.outcomes)} calls by status, {rows.total()} rows", flush=True)
    return [
        Row(f"{name}: answered, and not in the ledger", len(answered.keys() - rows.keys()) - lost, "calls", 0),
        Row(f"{name}: in the ledger twice", rows.total() - len(rows), "calls", 0),
        Row(f"{name}: sums that differ from their rows", len(wrong_sums(database)), "sums", 0),
    ]


# ── Kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def kills(kind: str) -> list[Row]:
    """Workers killed 15 times at full load."""
    with place(kind) as at:
        async with cluster(at.folder, at.url) as running:
            crowd = Crowd(running.port, at.secrets())
            async with crowd.of(_CLIENTS):
                for _ in range(_KILLS):
                    await asyncio.sleep(random.uniform(1.0, 3.0))
                    await until(lambda: len(running.workers) > 1, 30)
                    os.kill(random.choice(running.workers), signal.SIGKILL)
                await asyncio.sleep(3)
            name = f"{kind}, {_KILLS} kills"
            rows = await compared(name, at.database, crowd)

            def left_behind() -> int:
                return len(list((at.folder / "journal").iterdir())) - len(running.workers)

            await until(lambda: len(running.workers) == len(running.worker_ports) and not left_behind(), 60)
            return [*rows, Row(f"{name}: journals left behind", left_behind(), "files", 0)]


# ── A database that is away ──────────────────────────────────────────────────────────────────────────────────────────


async def away(how: str) -> list[Row]:
    """PostgreSQL stopped or frozen for 30 s under load, beside a cluster without a database as a measure."""
    with place("postgresql") as at, tempfile.TemporaryDirectory() as beside:
        assert at.server is not None
        begin, end = (at.server.stop, at.server.start) if how == "stopped" else (at.server.freeze, at.server.thaw)
        async with cluster(at.folder, at.url) as running, cluster(Path(beside), "none") as other:
            crowd = Crowd(running.port, at.secrets(), pause=0.1)
            measure = Crowd(other.port, [KEY], pause=0.1)
            async with crowd.of(_CLIENTS // 2), measure.of(_CLIENTS // 2):
                await asyncio.sleep(5)  # every worker has met the key
                marks = [time.monotonic()]
                for change in (begin, end, lambda: None):
                    await asyncio.sleep(_OUTAGE_SECONDS)
                    await asyncio.to_thread(change)
                    marks.append(time.monotonic())
            name = f"PostgreSQL {how} for {_OUTAGE_SECONDS:g} s"
            more = []
            for when, first, last in zip(("before", "during", "after"), marks, marks[1:], strict=False):
                ours, theirs = (list(_p99s(each.calls, first, last)) for each in (crowd, measure))
                more.append(median(a - b for a, b in zip(ours, theirs, strict=True)))
                shown = [f"{a:.0f}/{b:.0f}" for a, b in zip(ours, theirs, strict=True)]
                print(f"{name}: {when}, p99 with and without a database, ms: {' '.join(shown)}", flush=True)
            before, during, after = more
            rows = await compared(name, at.database, crowd)
            waiting = running.metric("kimi_ledger_waiting")
            return [
                Row(f"{name}: requests that failed", len(crowd.calls) - crowd.outcomes[200], "calls", 0),
                *rows,
                Row(f"{name}: p99 of answers, more than before", during - before, "ms", 5),
                Row(f"{name}: p99 of answers afterwards, more than before", after - before, "ms", 5),
                Row(f"{name}: calls said to be waiting afterwards", await waiting, "calls", 0),
            ]


def _p99s(calls: Sequence[Call], begin: float, end: float) -> Iterator[float]:
    """The 99th percentile of each window between two moments, in milliseconds."""
    for start in range(int((end - begin) / _WINDOW_SECONDS)):
        first = begin + start * _WINDOW_SECONDS
        seconds = sorted(call.seconds for call in calls if first <= call.sent < first + _WINDOW_SECONDS)
        yield seconds[int(len(seconds) * 0.99)] * 1000


# ── A disk that is full ──────────────────────────────────────────────────────────────────────────────────────────────


def _fill_disk(running: Cluster, *, full: bool) -> None:
    """Let no file of the workers grow any more, or again."""
    for pid in running.workers:
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_FULL_BYTES if full else most, most))


async def full_disk(kind: str) -> list[Row]:
    """The disk full for 30 s: of SQLite's database, too."""
    with place(kind) as at:
        async with cluster(at.folder, at.url) as running:
            crowd = Crowd(running.port, at.secrets(), user=_LONG_NAME)
            async with crowd.of(_CLIENTS):
                await asyncio.sleep(3)
                _fill_disk(running, full=True)
                await asyncio.sleep(30)
                _fill_disk(running, full=False)
                await asyncio.sleep(5)
            name = f"{kind}, disk full for 30 s"
            print(f"{name}: logged {dict(running.logged)}", flush=True)
            rows = await compared(name, at.database, crowd)
            lost, waiting = [await running.metric(f"kimi_ledger_{what}") for what in ("lost", "waiting")]
            return [
                Row(f"{name}: requests that failed", len(crowd.calls) - crowd.outcomes[200], "calls", 0),
                *rows,
                Row(f"{name}: calls said to be lost", lost, "calls", 0),
                Row(f"{name}: calls said to be waiting afterwards", waiting, "calls", 0),
                Row(f"{name}: warnings of each worker", running.logged["journal_full"] / 3, "lines", 1),
            ]


async def no_room() -> list[Row]:
    """PostgreSQL away and the disk full until memory is full, too: what is lost is counted."""
    with place("postgresql") as at:
        assert at.server is not None
        async with cluster(at.folder, at.url, workers=1) as running:
            crowd = Crowd(running.port, [KEY], user=_LONG_NAME)
            async with crowd.of(_CLIENTS):
                await asyncio.sleep(1)
                at.server.stop()
                _fill_disk(running, full=True)
                async with asyncio.timeout(200):
                    while not await running.metric("kimi_ledger_lost"):  # noqa: ASYNC110 - in another process
                        await asyncio.sleep(1)
                at.server.start()
                _fill_disk(running, full=False)
                await asyncio.sleep(3)
            lost = round(await running.metric("kimi_ledger_lost"))
            name = "database away, disk and memory full"
            return [
                Row(f"{name}: requests that failed", len(crowd.calls) - crowd.outcomes[200], "calls", 0),
                *await compared(name, at.database, crowd, lost=lost),
            ]


# ── Changes of keys ──────────────────────────────────────────────────────────────────────────────────────────────────


async def changes(kind: str) -> list[Row]:
    """A key changed in every way, from another process, while every worker is asked with it."""
    with place(kind) as at:
        async with cluster(at.folder, at.url) as running, _hammered(running) as crowd:
            watch = Watch(at, running)
            slowest = {name: await change(watch) for name, change in CHANGES.items()}
        print(f"{kind}: {len(crowd.calls)} other calls meanwhile", flush=True)
        return [Row(f"{kind}: {name}, until every worker knows", seconds, "s", 2) for name, seconds in slowest.items()]


@asynccontextmanager
async def _hammered(running: Cluster) -> AsyncGenerator[Crowd, None]:
    crowd = Crowd(running.port, [KEY])
    async with crowd.of(_CLIENTS):
        yield crowd


class Watch:
    """Asks every worker with a key, all the time, and says how long an old state of it was seen."""

    def __init__(self, at: Place, running: Cluster) -> None:
        self._at = at
        self.ports = running.worker_ports
        self._count = 0

    def key(self) -> tuple[StoredKey, str]:
        """A new key."""
        self._count += 1
        return self._at.key(f"key-{self._count}")

    def write(self, work: "Callable[[Database, Transaction], object]") -> object:
        """Change something, as `main.py keys` does."""
        with self._at.database.transaction() as connection:
            return work(self._at.database, connection)

    async def seen(
        self, secret: str, fits: Callable[[Call], bool], *, then: Callable[[], object], model: str = "kimi"
    ) -> float:
        """Seconds from a change to the last call, at any worker, that was sent after it and didn't fit it."""
        calls: list[Call] = []
        over = False

        async def ask(port: int) -> None:
            connection = await Connection.to(port)
            while not over:
                calls.append(await connection.call(secret, model=model))
                if connection.is_over:
                    connection.close()
                    connection = await Connection.to(port)
            connection.close()

        tasks = [asyncio.create_task(ask(port)) for port in self.ports for _ in range(2)]
        await asyncio.sleep(1)
        changed = time.monotonic()
        await asyncio.to_thread(then)
        done = time.monotonic()
        await asyncio.sleep(3)
        over = True
        await asyncio.gather(*tasks)
        assert not all(fits(call) for call in calls if call.sent < changed), "the change changes nothing"
        return max((call.sent - done for call in calls if call.sent >= done and not fits(call)), default=0.0)


def _opens(call: Call) -> bool:
    return call.status == 200


def _says(code: str) -> Callable[[Call], bool]:
    return lambda call: code.encode() in call.body


async def _field(watch: Watch, code: str, change: Callable[..., object], back: Callable[..., object] | None) -> float:
    """A change of a key's fields, and the way back."""
    key, secret = watch.key()
    slowest = await watch.seen(secret, _says(code), then=lambda: watch.write(partial(_changed, change, key)))
    if back is None:
        return slowest
    return max(slowest, await watch.seen(secret, _opens, then=lambda: watch.write(partial(_changed, back, key))))


def _changed(change: Callable[..., object], key: StoredKey, database: Database, connection: Transaction) -> object:
    return change(database, connection, key)


async def _models(watch: Watch) -> float:
    def narrow(database: Database, connection: Transaction, key: StoredKey) -> object:
        return update_key(database, connection, replace(key, models=("gpt-*",)))

    return await _field(watch, "model_not_found", narrow, update_key)


async def _expiry(watch: Watch) -> float:
    def expire(database: Database, connection: Transaction, key: StoredKey) -> object:
        return update_key(database, connection, replace(key, expires_at=now()))

    return await _field(watch, "key_expired", expire, update_key)


async def _rotation(watch: Watch) -> float:
    """The old secret opens for its grace of a second and no longer; the new one at once."""
    key, old = watch.key()
    new: list[str] = []

    def rotate(database: Database, connection: Transaction) -> None:
        new.append(rotate_key(database, connection, key, grace_seconds=1).secret)

    opened = await watch.seen(old, _says("key_expired"), then=lambda: watch.write(rotate))
    assert opened > 0.5, "the old secret stopped opening before its grace was over"
    for port in watch.ports:
        call = await (await Connection.to(port)).call(new[0])
        assert call.status == 200, "the new secret doesn't open"
    return max(opened - 1, 0)


CHANGES: dict[str, Callable[[Watch], Awaitable[float]]] = {
    "pause and resume": lambda watch: _field(watch, "key_paused", pause_key, resume_key),
    "revoke": lambda watch: _field(watch, "key_revoked", revoke_key, None),
    "other models and back": _models,
    "expiry and back": _expiry,
    "rotation, after the grace": _rotation,
}

SCENARIOS: dict[str, Scenario] = {
    "kills-sqlite": partial(kills, "sqlite"),
    "kills-postgresql": partial(kills, "postgresql"),
    "stopped": partial(away, "stopped"),
    "frozen": partial(away, "frozen"),
    "full-disk-sqlite": partial(full_disk, "sqlite"),
    "full-disk-postgresql": partial(full_disk, "postgresql"),
    "no-room": no_room,
    "writers": writers,
    "changes-sqlite": partial(changes, "sqlite"),
    "changes-postgresql": partial(changes, "postgresql"),
}


def main() -> int:
    """The command line."""
    names = chosen(__doc__, SCENARIOS)
    os.chdir(ROOT)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(SCENARIOS, names, longest=_LONGEST))


if __name__ == "__main__":
    sys.exit(main())
