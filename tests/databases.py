"""Real databases for tests: an SQLite file, and a PostgreSQL server of the tests' own.

A test module gets the fixtures by giving them names of its own: `database = databases.database`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from app.storage.database import Database
from app.storage.schema import migrate
from tests.ports import free_port

_DEBIAN = Path("/usr/lib/postgresql")
_SUPERUSER = "gateway"
_READY = "ready"
_START_TRIES = 5
_HOUR, _DAY = 3_600_000, 86_400_000
_SUMS = ("tokens_in", "tokens_out", "tokens_cached", "cost", "milliseconds")


class PostgresServer:
    """A PostgreSQL server on a port of its own. As root it runs as the user `postgres`, because it refuses root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._programs = max(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name))
        self.port = free_port()
        self._count = 0
        self._has_ready = False

    def start(self) -> None:
        """Start it, the first time with a new data folder, and wait until it answers."""
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            if os.geteuid() == 0:
                for path in (self._folder, self._data):
                    shutil.chown(path, "postgres")
            self._run("initdb", "-D", self._data, "-A", "trust", "-U", _SUPERUSER, "-N")
            for _ in range(_START_TRIES):
                try:
                    self._start()
                except subprocess.CalledProcessError:
                    self.port = free_port()  # somebody else was faster at this one
                else:
                    return
        self._start()

    def _start(self) -> None:
        # It may lose everything with the machine, and cleans nothing up that has been there for seconds only.
        settings = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        settings += " -c full_page_writes=off -c autovacuum=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-o", settings, "-l", self._folder / "log", "start")

    def stop(self) -> None:
        """End it at once; connections break off."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def freeze(self) -> None:
        """Let it take connections and bytes, and answer nothing, until it is thawed."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        self._count += 1
        return self._create(f"gateway{self._count}", "template1")

    def new_ready_database(self) -> str:
        """Make a database with tables and return its address: a copy, which takes less time than to make them."""
        if not self._has_ready:
            with closing(Database(self._create(_READY, "template1"), timeout=5)) as database:
                migrate(database)
            self._has_ready = True
        self._count += 1
        return self._create(f"gateway{self._count}", _READY)

    def _create(self, name: str, template: str) -> str:
        address = f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}"
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return f"{address}/{name}"

    def _signal(self, number: signal.Signals) -> None:
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, program: str, *arguments: str | Path) -> None:
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*become, str(self._programs / program), *map(str, arguments)]
        # To a file: a server that was started keeps pipes open.
        with (self._folder / "commands.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=60, cwd="/")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server with nothing in it, for as long as the context lasts."""
    # Not in pytest's own folder, which other users can't enter.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def ready_file(file: Path) -> str:
    """Make an SQLite file with tables, and return its address: a copy, which takes less time than to make them."""
    file.write_bytes(_ready_bytes())
    return f"sqlite:///{file}"


@cache
def _ready_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ready.db"
        with closing(Database(f"sqlite:///{file}", timeout=5)) as database:
            migrate(database)
        assert [path.name for path in file.parent.iterdir()] == [file.name], "not all is in the file"
        return file.read_bytes()


def wrong_sums(database: Database) -> set[tuple[str, int, str]]:
    """The sums of the ledger (by hour or day, since when, of which key) that aren't what its rows add up to."""
    rows = text(
        f"SELECT id >> 22, name.text, 1, {', '.join(_SUMS)} FROM request JOIN name ON name.number = request.key"
    )
    durations = " + ".join(f"m{place}" for place in range(12))
    columns = ", ".join(f"sum({name})" for name in ("requests", *_SUMS, durations))
    sums = text(f"SELECT grain, start, key_id, {columns} FROM usage GROUP BY grain, start, key_id")
    expected: dict[tuple[str, int, str], list[int]] = {}
    with database.transaction(reads=True) as connection:
        for at, key, *values in connection.execute(rows):
            for grain, length in (("hour", _HOUR), ("day", _DAY)):
                for whose in ("", key):
                    of = (grain, at - at % length, whose)
                    expected[of] = list(map(sum, zip(expected.get(of, [0] * 7), (*values, 1), strict=True)))
        found = {(grain, start, key): list(map(int, values)) for grain, start, key, *values in connection.execute(sums)}
    return {of for of in expected.keys() | found.keys() if expected.get(of) != found.get(of)}


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """A server that tests share, each with a database of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that a test may stop and start."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of each kind: with tables if the test asks for a `database`, else empty."""
    is_ready = "database" in request.fixturenames
    if request.param == "sqlite":
        file = tmp_path / "gateway.db"
        return ready_file(file) if is_ready else f"sqlite:///{file}"
    server: PostgresServer = request.getfixturevalue("shared_postgres")
    return server.new_ready_database() if is_ready else server.new_database()


@pytest.fixture
def empty_database(database_url: str) -> Iterator[Database]:
    """A database of each kind, without tables."""
    database = Database(database_url, timeout=5)
    yield database
    database.close()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database of each kind, ready for use."""
    migrate(empty_database)  # finds the tables there
    return empty_database
