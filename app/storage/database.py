"""The connection to the database: a thread of its own, one transaction a function.

Nothing of it is on a request's way. Code on the event loop hands a function to `Database.run`; code that has a thread
of its own (the ledger's writer, the command line) opens a `transaction`. SQLite and PostgreSQL get the same statements.
"""

import asyncio
import contextlib
import importlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

__all__ = ["Connection", "Database", "DatabaseAway"]

T = TypeVar("T")
_LONGEST_REASON = 160
# All that SQLite says, whatever the system has told it.
_NOT_OPENED = "unable to open database file"
_FORMS = "sqlite:///data/gateway.db, or postgresql://user:password@host:5432/name"
_IN_PASSWORDS = "In a password, write %40 for @, %3A for :, %2F for / and %25 for %"
# What everybody may know of a fault, by what drivers say.
_REASONS = {
    "refused": "connection refused",
    "name or service": "name not found",
    "name resolution": "name not found",
    "translate host": "name not found",
    "authentication": "credentials refused",
    "does not exist": "no such database or role",
    "timeout": "timed out",
    "timed out": "timed out",
    "longer than": "timed out",
    "locked": "busy",
    "full": "disk full",
    "readonly": "read-only",
    "unable to open": "the file can't be opened",
    "shutting down": "shutting down",
    "starting up": "starting up",
    "closed": "connection lost",
}
# What psycopg, PostgreSQL's client library, its server and poolers say of options that they don't take.
_OPTION_REFUSED = (
    "connection is bad: invalid ",
    "for connection option",
    "bad value for connect_timeout",
    "FATAL:  unrecognized configuration parameter",
    "FATAL:  invalid value for parameter",
    "FATAL:  unsupported startup parameter",
)
# How long a transaction that may take its time waits for others.
_PATIENCE_SECONDS = 120
# As SQLite tells it.
_INCREMENTAL = 2
# Bytes that SQLite's file of what is written (`-wal`) keeps when all of it is in the database.
_MOST_WAL = 16 * 1024 * 1024
# Two for requests' sake (the event loop's thread, the ledger's writer), one more for a report.
_CONNECTIONS = 3
_REPORT_SECONDS = 10.0
# PostgreSQL's advisory lock of this number, which all gateways share, is held by whoever writes what has an order.
_WRITE_LOCK = 0x6B696D69


class DatabaseAway(Exception):
    """The database can't be reached, or takes too long; says why, without secrets."""


class AddressRefused(DatabaseAway):
    """The driver or the server doesn't take an option in the address: waiting doesn't help."""


class Database:
    """A database, opened at the first transaction.

    Args:
        url: `sqlite:///PATH` or `postgresql://user:password@host/name`.
        timeout: Seconds that anything may take. Slow is treated like away.

    Raises:
        ValueError: The address can't be used.
    """

    def __init__(self, url: str | URL, *, timeout: float = 2.0) -> None:
        self.url = _checked(url)
        self._timeout = timeout
        self.backend = self.url.get_backend_name()
        self.is_sqlite = self.backend == "sqlite"
        self._engine = _sqlite(self.url, timeout) if self.is_sqlite else _postgresql(self.url, timeout)
        self._thread = ThreadPoolExecutor(1, "database")
        self._reports = ThreadPoolExecutor(1, "reports")
        # Whether the schema is known to be right; set by `schema.migrate`.
        self.prepared = False
        # Why the last transaction failed; empty if it didn't.
        self.fault = ""
        self._is_closed = False

    @classmethod
    def in_file(cls, file: Path) -> "Database":
        """A database in a file of SQLite's, whatever characters its name has."""
        return cls(URL.create("sqlite", database=str(file.absolute())))

    async def run(self, work: Callable[[Connection], T], *, reads: bool = False) -> T:
        """Run a function in a transaction of its own on the database's thread.

        Args:
            work: Takes the connection. What it raises undoes what it wrote.
            reads: Whether it only reads, and so never waits for a writer.

        Raises:
            DatabaseAway: It can't be reached, or it takes too long. The function may still be running, or wait for
                its turn; what it does then is undone or done as a whole.
        """
        if not self.prepared:
            raise DatabaseAway(self.fault or "its tables have not been looked at yet")
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._worked, work, reads)
        try:
            # Not by `wait_for`: until Python 3.12 it swallows a cancellation that comes as the work is done.
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            self.fault = f"it took longer than {self._timeout:g} s"
            raise DatabaseAway(self.fault) from None

    async def change(self, work: Callable[[Connection], T]) -> T:
        """Run a function that changes something: what it reads first, nobody else changes until it is done.

        Raises:
            DatabaseAway: See `run`.
        """

        def alone(connection: Connection) -> T:
            self.hold_back_writers(connection)
            return work(connection)

        return await self.run(alone)

    async def report(self, work: Callable[[Connection], T]) -> T:
        """Run a function that only reads on a thread of its own: a long report holds up nothing else.

        Raises:
            DatabaseAway: It can't be reached, or it takes too long.
        """
        if not self.prepared:
            raise DatabaseAway(self.fault or "its tables have not been looked at yet")
        future = asyncio.get_running_loop().run_in_executor(self._reports, self._worked, work, True)
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                return await future
        except TimeoutError:
            raise DatabaseAway(f"a report took longer than {_REPORT_SECONDS:g} s") from None

    @contextmanager
    def transaction(self, *, reads: bool = False, patient: bool = False) -> Iterator[Connection]:
        """Open a transaction here and now, on the caller's thread.

        Args:
            reads: Whether it only reads.
            patient: Whether it may take as long as it needs, and wait two minutes for others.

        Raises:
            DatabaseAway: The database can't be reached, or is busy for too long.
        """
        pool = self._engine.pool
        try:
            with self._engine.connect() as connection:
                if reads or patient:
                    connection = connection.execution_options(reads=reads, patient=patient)  # noqa: PLW2901 - the same
                with connection.begin():
                    yield connection
        except (IntegrityError, DataError):
            raise  # what was written is at fault, not the database
        except (DBAPIError, PoolTimeout) as error:
            self.fault = _reason(error)
            if self.is_sqlite and self.fault == _NOT_OPENED and (why := _why_not_opened(Path(str(self.url.database)))):
                self.fault = f"{_NOT_OPENED}: {why}"
            is_refused = any(sign in self.fault for sign in _OPTION_REFUSED)
            raise (AddressRefused if is_refused else DatabaseAway)(self.fault) from error
        finally:
            if self._is_closed:
                pool.dispose()  # `close` could only close the connections that nobody used
        self.fault = ""

    def hold_back_writers(self, connection: Connection) -> None:
        """Let no other transaction that asks for this write until the end of this one.

        For rows whose numbers have to be committed in their order. SQLite has one writer at a time anyway.
        """
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITE_LOCK})

    @property
    def is_missing(self) -> bool:
        """Whether it is a file that isn't there, and that the first transaction would make."""
        return self.is_sqlite and not Path(str(self.url.database)).exists()

    @property
    def shown_url(self) -> str:
        """The address without its passwords, which may also be options of libpq's."""
        hidden = {name: "..." for name in self.url.query if "password" in name}
        return self.url.update_query_dict(hidden).render_as_string(hide_password=True)

    def reason(self) -> str:
        """Why it is away, in words that tell nothing about where it is; empty if it isn't."""
        if self.prepared and not self.fault:
            return ""
        fault = self.fault.lower()
        return next((words for sign, words in _REASONS.items() if sign in fault), "it can't be used")

    def close(self) -> None:
        """Let go of the connections and the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._reports.shutdown(wait=False, cancel_futures=True)
        self._is_closed = True
        self._engine.dispose()

    def _worked(self, work: Callable[[Connection], T], reads: bool) -> T:
        with self.transaction(reads=reads) as connection:
            return work(connection)


def insert_into(table: Table, backend: str) -> Any:
    """An INSERT that can say what to do ON CONFLICT, in the dialect of `Database.backend`."""
    # Of one dialect only: PostgreSQL's takes 3 MB.
    return importlib.import_module(f"sqlalchemy.dialects.{backend}").insert(table)


def _checked(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(f"write {_FORMS}") from None
    except ValueError:  # what stands where the port does may be a part of the password
        raise ValueError(f"its port is not a number; write {_FORMS}. {_IN_PASSWORDS}") from None
    backend = parsed.get_backend_name()
    if backend == "postgres":
        parsed, backend = parsed.set(drivername="postgresql"), "postgresql"
    if backend == "postgresql":
        # Behind the password's first @ the rest of it would count as the host, which error messages name.
        if "@" in (parsed.host or "") or ("@" in (parsed.database or "") and "%40" not in str(url)):
            raise ValueError(f"there is an @ too many in it. {_IN_PASSWORDS}")
        return _known_options(parsed.set(drivername="postgresql+psycopg"))
    if backend != "sqlite":
        raise ValueError(f"{backend[:40]!r} is not a database that the gateway knows: sqlite and postgresql are")
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("the database has to be a file: sqlite:///data/gateway.db")
    if parsed.query:
        raise ValueError("the address of a file takes no options; end it before the question mark")
    return parsed


def _known_options(url: URL) -> URL:
    """An address that has no other options than PostgreSQL's client library knows.

    Raises:
        ValueError: It has; says which.
    """
    # SQLAlchemy and psycopg would take some more for themselves, or fail with errors of their own.
    pq = importlib.import_module("psycopg.pq")  # which comes with the first engine anyway
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in url.query.keys() - known:
        if any("@" in text for text in (name, *map(str, url.query.values()))):
            raise ValueError(f"there is an @ too many in it. {_IN_PASSWORDS}")
        raise ValueError(f"{name[:40]!r} is not an option that PostgreSQL knows, such as sslmode")
    try:
        url.get_dialect()().create_connect_args(url)
    except ArgumentError:
        raise ValueError(f"a port in its options is not a number; write {_FORMS}") from None
    return url


def _sqlite(url: URL, timeout: float) -> Engine:
    engine = create_engine(url, pool_size=_CONNECTIONS, connect_args={"timeout": timeout})
    file = Path(str(url.database))

    @event.listens_for(engine, "do_connect")
    def make_file(*_: object) -> None:
        with contextlib.suppress(OSError):  # told when SQLite can't open it either
            _make_file(file)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin as `begin` says, not as Python's module guesses
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
            # Only in a new file: setting it writes, and so would wait for whoever else writes.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # What has been written while somebody read for long makes the further file large: it becomes smaller again.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"journal_size_limit={_MOST_WAL}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        seconds = _PATIENCE_SECONDS if options.get("patient") else timeout
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
        # A transaction that reads first and writes later would fail, instead of wait, when another one has written.
        connection.exec_driver_sql("BEGIN" if options.get("reads") else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, timeout: float) -> Engine:
    milliseconds = round(timeout * 1000)
    options: dict[str, Any] = {
        "connect_timeout": max(2, round(timeout)),
        "tcp_user_timeout": milliseconds * 2,
        # A machine that is gone without a word while an answer is waited for is noticed after 25 s, not after hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": "kimi-ai-2api",
        "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
    }
    # What the address says itself wins.
    engine = create_engine(
        url,
        pool_size=_CONNECTIONS,
        pool_timeout=timeout,
        pool_pre_ping=True,
        connect_args={name: value for name, value in options.items() if name not in url.query},
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("patient"):
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")

    return engine


def _reason(error: DBAPIError | PoolTimeout) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    lines = str(original).strip().splitlines() or [type(original).__name__]
    return lines[0][:_LONGEST_REASON]


def _make_file(file: Path) -> None:
    """Make SQLite's file, and its folder, if it isn't there.

    Raises:
        OSError: It can't be made.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Nobody else's business, like the journal. SQLite's further files get the same mode.
        file.touch(mode=0o600)


def _why_not_opened(file: Path) -> str:
    """What the system says of a file that SQLite can't open; empty if nothing is wrong with it."""
    try:
        _make_file(file)
        os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or ""
    # SQLite's further files are made beside it.
    return "" if os.access(file.parent, os.W_OK) else "nothing can be written to its folder"
