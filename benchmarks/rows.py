"""The ledger with ten million rows: how long pages, sums, the console and cleaning take, and how large it is.

    .venv/bin/python -m benchmarks.rows [--rows N] [--database sqlite|postgresql]

Makes the rows first, which takes some minutes, in a folder of its own that is deleted at the end: 2 GB for ten million
in SQLite, 3 GB in PostgreSQL (a server of its own). Prints a row for each figure with its bound, and exits with 1 if a
bound is broken. A time is the shortest of several runs: neither cold caches count, nor what others do on this machine.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, create_engine, func, select, text

from app.ledger.journal import Journal
from app.ledger.writer import LedgerWriter
from app.storage import tables
from app.storage.database import Database
from app.storage.request_pages import RowFilter, page_of_rows, row_of, rows_of_request
from app.storage.requests import size_in_bytes, write_rows
from app.storage.rows import id_at
from app.storage.schema import migrate
from app.storage.usage import DAY, HOUR, percentile, usage_by, usage_of
from benchmarks.bounds import Row
from benchmarks.ledger_rows import RARE_ERROR, RARE_MODEL, Filled, fill
from simulator.live import running
from tests.console.running import PAGES, Signed, console_of
from tests.databases import PostgresServer
from tests.storage.calls import call

_RUNS = 11
_PAGE_MS = 20
_OVERVIEW_MS = 200
_KEY_MS = 5
_SHOWN_MS = 200
# It stops after eight seconds, and says so.
_TRIED_MS = 10_000
_ROW_BYTES = 250
# What a writer may have to wait, or a step of cleaning take, at most: half of what makes a database count as away.
_LONGEST_MS = 1000
_SIZES = text(
    "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE oid IN (SELECT indexrelid FROM pg_index "
    "WHERE indrelid = 'request'::regclass) OR relname IN ('request', 'usage', 'usage_pkey') ORDER BY relname"
)


class WatchedDatabase(Database):
    """One that knows its longest transaction that writes."""

    longest = 0.0

    @contextmanager
    def transaction(self, *, reads: bool = False, patient: bool = False) -> Iterator[Connection]:
        with super().transaction(reads=reads, patient=patient) as connection:
            started = time.monotonic()
            yield connection
        if not reads:
            self.longest = max(self.longest, time.monotonic() - started)


@contextmanager
def database_of(kind: str, folder: Path) -> Generator[WatchedDatabase, None, None]:
    """An empty database of a kind, with its tables."""
    server = None if kind == "sqlite" else PostgresServer(folder)
    if server is not None:
        server.start()
    url = f"sqlite:///{folder}/gateway.db" if server is None else server.new_database()
    database = WatchedDatabase(url, timeout=60)
    try:
        migrate(database)
        yield database
    finally:
        database.close()
        if server is not None:
            server.stop()


def timed(database: Database, work: Callable[[Connection], Any]) -> float:
    """The milliseconds that something takes that reads, in a transaction of its own."""
    times = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        with database.transaction(reads=True) as connection:
            work(connection)
        times.append((time.perf_counter() - started) * 1000)
    return min(times[1:])


def pages(database: Database, filled: Filled) -> list[Row]:
    """Pages as the console asks for them."""
    middle = id_at(filled.now - 30 * DAY)
    rare = RowFilter(model=RARE_MODEL, provider="moonshot", outcome="completed")
    asked: dict[str, Callable[[Connection], Any]] = {
        "newest": page_of_rows,
        "200 from the middle": lambda c: page_of_rows(c, before=middle, limit=200),
        "of a busy key": lambda c: page_of_rows(c, RowFilter(key_id=filled.busy_key), before=middle),
        "of a rare key": lambda c: page_of_rows(c, RowFilter(key_id=filled.rare_key)),
        "trouble": lambda c: page_of_rows(c, RowFilter(trouble=True), before=middle),
        "of a busy key's trouble": lambda c: page_of_rows(c, RowFilter(key_id=filled.busy_key, trouble=True)),
        "of an error": lambda c: page_of_rows(c, RowFilter(error="upstream_timeout")),
        "of a rare error": lambda c: page_of_rows(c, RowFilter(error=RARE_ERROR)),
        "of model, provider and outcome": lambda c: page_of_rows(
            c, RowFilter(model="kimi", provider="kimi-web", outcome="failed")
        ),
        "of a common model": lambda c: page_of_rows(c, RowFilter(model="gpt-oss-120b"), before=middle),
        "of a rare model, provider and outcome": lambda c: page_of_rows(c, rare),
        "of a rare model and another key": lambda c: page_of_rows(
            c, RowFilter(model=RARE_MODEL, key_id=filled.busy_key)
        ),
        "of a model that there isn't": lambda c: page_of_rows(c, RowFilter(model="none")),
        "of a project": lambda c: page_of_rows(c, RowFilter(project="project-39")),
        "of a project that there isn't": lambda c: page_of_rows(c, RowFilter(project="none")),
        "of a model on one day": lambda c: page_of_rows(
            c, RowFilter(model="phi-4", since=filled.now - 9 * DAY, until=filled.now - 8 * DAY)
        ),
    }
    rows = [Row(f"page {name}", timed(database, work), "ms", _PAGE_MS) for name, work in asked.items()]
    with database.transaction(reads=True) as connection:
        assert row_of(connection, filled.row_id)
        assert [row["id"] for row in rows_of_request(connection, filled.request_id)] == [filled.row_id]
        assert len(rows_of_request(connection, filled.given_id)) == 1
        rows.append(Row("pages until a rare model's 50 rows are found", _pages_of(connection, rare), "pages", 60))
    return [
        *rows,
        Row("a row by its id", timed(database, lambda c: row_of(c, filled.row_id)), "ms", _PAGE_MS),
        Row(
            "a row by our request id", timed(database, lambda c: rows_of_request(c, filled.request_id)), "ms", _PAGE_MS
        ),
        Row("a row by a client's id", timed(database, lambda c: rows_of_request(c, filled.given_id)), "ms", _PAGE_MS),
    ]


def _pages_of(connection: Connection, wanted: RowFilter) -> int:
    count, before = 0, None
    while True:
        page = page_of_rows(connection, wanted, before=before)
        count, before = count + 1, page.before
        if before is None:
            return count


def overview(connection: Connection, now: int, length: int, grain: str) -> None:
    """What the console's first page shows of a time, with the time before."""
    until = now - now % (HOUR if grain == "hour" else DAY) + (HOUR if grain == "hour" else DAY)
    since = until - length
    usage_by(connection, grain, "outcome", since=since, until=until)
    for by in ("model", "key", "provider", "outcome"):
        usage_by(connection, by, since=since, until=until)
    for begin in (since, since - length):
        (total,) = usage_by(connection, since=begin, until=begin + length, durations=True)
        percentile(total, 0.5), percentile(total, 0.95)


def sums(database: Database, filled: Filled) -> list[Row]:
    """Sums as the console and a key's holder ask for them."""
    now = filled.now
    day = datetime.fromtimestamp(now / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = {"today": int(day.timestamp() * 1000), "month": int(day.replace(day=1).timestamp() * 1000), "total": 0}

    def of_key(connection: Connection) -> list[dict[str, Any]]:
        return usage_by(connection, "key", "day", "model", since=now - 30 * DAY, until=now)

    day_ms = timed(database, lambda c: overview(c, now, DAY, "hour"))
    month_ms = timed(database, lambda c: overview(c, now, 30 * DAY, "day"))
    hourly_ms = timed(database, lambda c: usage_by(c, "hour", "model", since=now - 30 * DAY, until=now))
    return [
        Row("overview of 24 hours, by hour", day_ms, "ms", _OVERVIEW_MS),
        Row("overview of 30 days, by day", month_ms, "ms", _OVERVIEW_MS),
        Row("both", day_ms + month_ms, "ms", _OVERVIEW_MS),
        Row("30 days by hour and model", hourly_ms, "ms", 1000),
        Row("30 days by key, day and model", timed(database, of_key), "ms", 1000),
        Row(
            "a key's today, month and total",
            timed(database, lambda c: usage_of(c, filled.busy_key, begins)),
            "ms",
            _KEY_MS,
        ),
    ]


def console(database: Database, filled: Filled, folder: Path, log: TextIO) -> list[Row]:
    """The console's pages, as an administrator's browser gets them of a gateway; and the trial of new limits."""
    url = database.url.render_as_string(hide_password=False)
    asked = {
        **{name or "overview": name for name in PAGES},
        "overview of 30 days": "?span=30d",
        "requests of a key's trouble": f"requests?key={filled.busy_key}&trouble=1",
        "requests of a model, an upstream, an outcome": "requests?model=kimi&provider=kimi-web&outcome=failed&span=30d",
        "a request": f"requests/{filled.row_id}",
        "a key": f"keys/{filled.busy_key}",
        "a project's limits": "limits/project:project-39",
    }
    with (
        running() as site,
        # Nothing is cleaned up meanwhile.
        console_of(site, log, folder, database_url=url, requests_kept_days=3650, database_max_mb=1_000_000) as gateway,
        gateway.signed_in("admin") as admin,
    ):
        rows = [
            Row(f"page of the console: {name}", _page_ms(admin, path), "ms", _SHOWN_MS) for name, path in asked.items()
        ]
        started = time.perf_counter()
        answer = admin.post("/console/limits/gateway", limits="6000 requests/minute, 1M tokens/day", do="try")
        answer.raise_for_status()
        rows.append(
            Row(
                "page of the console: limits of the gateway, tried on seven days",
                (time.perf_counter() - started) * 1000,
                "ms",
                _TRIED_MS,
            )
        )
    return rows


def _page_ms(admin: Signed, path: str) -> float:
    """The milliseconds until the whole page is there."""
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        admin.client.get(f"/console/{path}").raise_for_status()
        times.append((time.perf_counter() - started) * 1000)
    return min(times)


def size(database: Database, filled: Filled) -> list[Row]:
    """What rows take, and whether the gateway knows it."""
    with database.transaction(reads=True) as connection:
        known = size_in_bytes(database, connection)
        if database.is_sqlite:
            taken = known
        else:
            taken = int(connection.execute(text("SELECT pg_total_relation_size('request')")).scalar() or 0)
            for name, bytes_taken in connection.execute(_SIZES):
                print(f"{name}: {bytes_taken / filled.rows:.1f} bytes a row", flush=True)
        of_sums = int(connection.execute(select(func.count()).select_from(tables.usage)).scalar() or 0)
    print(f"{of_sums:,} sums", flush=True)
    return [
        Row("a row with its indexes", taken / filled.rows, "bytes", _ROW_BYTES),
        Row("the size that the gateway counts with is wrong by", abs(known / taken - 1) * 100, "%", 10),
    ]


def cleaning(database: WatchedDatabase, folder: Path) -> list[Row]:
    """Rows that are too old, then 3 % too much, while others write."""
    with database.transaction(reads=True) as connection:
        before = size_in_bytes(database, connection)
    writer = Writer(database)
    rows = []
    for what, days, share in (("rows of two days too old", 58.0, 2.0), ("3 % too large", 1000.0, 0.94)):
        most = before * share
        journal = Journal(folder / what[:4].strip(), most=1)
        cleaner = LedgerWriter(database, journal, kept_days=days, max_megabytes=most / 1024**2)
        writer.longest = database.longest = 0.0
        started = time.monotonic()
        cleaner.clean()
        seconds = time.monotonic() - started
        with database.transaction(reads=True) as connection:
            left = size_in_bytes(database, connection)
            count = connection.execute(select(func.count()).select_from(tables.requests)).scalar()
        print(f"{what}: cleaned in {seconds:.1f} s, {count:,} rows left", flush=True)
        rows += [
            Row(f"{what}: longest transaction", database.longest * 1000, "ms", _LONGEST_MS),
            Row(f"{what}: longest wait of somebody who writes", writer.longest * 1000, "ms", _LONGEST_MS),
            Row(f"{what}: size beside the bound", left / most * 100, "%", 101),
        ]
    writer.stop()
    rows.append(Row("size beside the bound: at least", -left / most * 100, "%", -95))
    return rows


class Writer:
    """Writes 20 calls ten times a second on a thread of its own, as a busy worker does."""

    def __init__(self, database: WatchedDatabase) -> None:
        self._database = Database(database.url.render_as_string(hide_password=False), timeout=60)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest = 0.0
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            at = time.time_ns() // 1_000_000
            calls = [call(at=at, count=place, request_id=f"r-{at}-{place}", key_id=f"k_{place}") for place in range(20)]
            started = time.monotonic()
            with self._database.transaction() as connection:
                write_rows(self._database, connection, 2, calls)
            self.longest = max(self.longest, time.monotonic() - started)


def measured(kind: str, count: int, log: TextIO) -> list[Row]:
    """All figures of a kind of database."""
    folder = Path(tempfile.mkdtemp(prefix=f"rows-{kind}-"))
    try:
        with database_of(kind, folder) as database:
            started = time.monotonic()
            filled = fill(database, count)
            print(f"{kind}: {filled.rows:,} rows made in {time.monotonic() - started:.0f} s", flush=True)
            if not database.is_sqlite:
                _vacuum(database)
            rows = [*size(database, filled), *pages(database, filled), *sums(database, filled)]
            rows += console(database, filled, folder, log)
            return [
                Row(f"{kind}: {row.what}", row.figure, row.unit, row.bound)
                for row in (*rows, *cleaning(database, folder))
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _vacuum(database: Database) -> None:
    """What autovacuum would have done in months."""
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM (ANALYZE) request"))
        connection.execute(text("VACUUM (ANALYZE) usage"))
    engine.dispose()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both")
    options = parser.parse_args()
    kinds = [options.database] if options.database else ["sqlite", "postgresql"]
    holds = True
    with Path(os.devnull).open("w") as log:
        for kind in kinds:
            rows = measured(kind, options.rows, log)
            width = max(len(row.what) for row in rows)
            for row in rows:
                verdict = "holds" if row.holds else "BROKEN"
                print(
                    f"{row.what:<{width}}  {row.figure:10.1f} {row.unit:<8}  bound {row.bound:>8g}  {verdict}",
                    flush=True,
                )
            holds = holds and all(row.holds for row in rows)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
