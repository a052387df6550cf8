"""Several processes write into one SQLite file while another one reads reports from it."""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

import structlog
import uvloop

from app.domain.chat import Usage
from app.domain.usage import CallRecord, Origin
from app.ledger.journal import Journal
from app.ledger.ledger import Ledger
from app.ledger.writer import LedgerWriter
from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.request_pages import RowFilter, page_of_rows
from app.storage.schema import migrate
from app.storage.usage import usage_by, usage_of
from benchmarks.bounds import Row

_PROCESSES = 3
_RECORDS_A_SECOND = 500
_PHASES = 6  # with the ledger and without, turn and turn about
_PHASE_SECONDS = 10.0
_TICK_SECONDS = 0.002
_HOUR, _DAY = 3_600_000, 86_400_000


class _Troubles:
    """A processor of structlog that counts what is logged."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, _: object, __: str, event: Any) -> Any:
        self.found.append(f"{event.get('event')}: {event.get('reason', '')}")
        raise structlog.DropEvent


def _worker(number: int, folder: str, results: Any) -> None:
    """Count calls at a steady rate in phases, and measure how late the loop is in each."""
    troubles = _Troubles()
    structlog.configure(processors=[troubles])
    database = Database(f"sqlite:///{folder}/gateway.db")
    database.prepared = True
    journal = Journal(Path(folder) / "journal", most=1 << 30)
    journal.open()
    writer = LedgerWriter(database, journal, kept_days=30, max_megabytes=4096)
    writer.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lags = runner.run(_phases(number, Ledger(journal)))
    writer.stop(30)
    results.put((lags, journal.appended, troubles.found))


async def _phases(number: int, ledger: Ledger) -> dict[bool, list[float]]:
    lags: dict[bool, list[float]] = {True: [], False: []}
    loop = asyncio.get_running_loop()
    for phase in range(_PHASES):
        counts = phase % 2 == 0
        late: list[float] = []
        begin, made = loop.time(), 0
        while (passed := loop.time() - begin) < _PHASE_SECONDS:
            while made < passed * _RECORDS_A_SECOND:
                record = _record(f"k_{number}_{made % 20}", f"req_{number}_{phase}_{made}")
                if counts:
                    ledger.call_ended(record)
                made += 1
            due = loop.time() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            late.append(loop.time() - due)
        late.sort()
        lags[counts].append(late[int(len(late) * 0.99)] * 1000)
    return lags


def _record(key: str, request_id: str) -> CallRecord:
    return CallRecord(
        caller_id=key,
        model="kimi",
        provider="kimi-web",
        outcome="completed",
        error_code=None,
        action="stateless",
        prompt_size=10,
        dropped=0,
        usage=None,
        seconds=1.5,
        upstream_seconds=0.5,
        origin=Origin(request_id, "openai", streamed=True),
        project="lab",
        asked_model="kimi",
        served_model="kimi",
        charged=Usage(300, 400),
    )


def _reader(folder: str, over: Event, results: Any) -> None:
    """What a dashboard asks for, ten times a second."""
    database = Database(f"sqlite:///{folder}/gateway.db")
    reports: list[Callable[[Any], object]] = [
        lambda connection: _pages(connection, None),
        lambda connection: _pages(connection, "k_1_1"),
        lambda connection: usage_by(connection, "key", since=now() - _DAY, until=now()),
        lambda connection: usage_by(connection, "hour", since=now() - _DAY, until=now()),
        lambda connection: usage_of(connection, "k_1_1", {"ever": 0}),
    ]
    faults, delays = [], []
    while not over.is_set():
        for read in reports:
            started = time.monotonic()
            try:
                with database.transaction(reads=True) as connection:
                    read(connection)
            except DatabaseAway as error:
                faults.append(str(error))
            delays.append(time.monotonic() - started)
        over.wait(0.1)
    results.put((sorted(delays), faults))


def _pages(connection: Any, key_id: str | None) -> None:
    before = None
    for _ in range(5):
        page = page_of_rows(connection, RowFilter(key_id=key_id), before=before).rows
        if not page:
            return
        before = page[-1]["id"]


async def writers() -> list[Row]:
    """Three workers with 500 calls a second each, and a fourth process with a dashboard's queries."""
    return await asyncio.to_thread(_writers)


def _writers() -> list[Row]:
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/gateway.db")
        migrate(database)
        results, reports, over = spawned.Queue(), spawned.Queue(), spawned.Event()
        working = [spawned.Process(target=_worker, args=(each, folder, results)) for each in range(_PROCESSES)]
        reading = spawned.Process(target=_reader, args=(folder, over, reports))
        for process in (*working, reading):
            process.start()
        told = [results.get(timeout=_PHASES * _PHASE_SECONDS + 60) for _ in working]
        over.set()
        delays, faults = reports.get(timeout=30)
        for process in (*working, reading):
            process.join(30)
        with database.transaction(reads=True) as connection:
            rows = connection.exec_driver_sql("SELECT count(*), count(DISTINCT request_id) FROM request").one()
        database.close()
    made = sum(appended for _, appended, _ in told)
    with_it = median(lag for lags, _, _ in told for lag in lags[True])
    without = median(lag for lags, _, _ in told for lag in lags[False])
    # Of neighbouring phases: the machine has other things to do, too.
    more = median(a - b for lags, _, _ in told for a, b in zip(lags[True], lags[False], strict=True))
    troubles = [trouble for _, _, found in told for trouble in found] + faults
    name = f"{_PROCESSES} x {_RECORDS_A_SECOND} calls/s into one SQLite file"
    print(f"{name}: {made} calls, p99 of loop lag with {with_it:.2f} ms, without {without:.2f} ms", flush=True)
    print(f"{name}: {len(delays)} reports, slowest {delays[-1] * 1000:.0f} ms; {json.dumps(troubles)}", flush=True)
    return [
        Row(f"{name}: locked, or in any other trouble", len(troubles), "times", 0),
        Row(f"{name}: not in the ledger", made - rows[1], "calls", 0),
        Row(f"{name}: in the ledger twice", rows[0] - rows[1], "calls", 0),
        # The loop may have to wait for the writer's thread as long as Python lets a thread run.
        Row(f"{name}: p99 of loop lag, more than without", more, "ms", sys.getswitchinterval() * 1000),
    ]
