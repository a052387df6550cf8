"""A transaction waits for others no longer than it has to, and no shorter than it may."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app.assembly.database import prepare
from app.settings import SettingsError
from app.storage.database import Database, DatabaseAway
from app.storage.keys import list_keys
from tests import databases
from tests.live import WAIT_SECONDS, until

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("postgresql://u:p@secret@host/db", "an @ too many", id="an @ in the password"),
        pytest.param("postgresql://u:p@sec/ret@host/db", "an @ too many", id="and a slash"),
        pytest.param("postgresql://u:p@secret:x@host/db", "port is not a number", id="and a colon"),
        pytest.param("postgresql://u:p@host:port/db", "port is not a number", id="no port"),
        pytest.param("postgresql://u:pass@se?cret=x@host/db", "an @ too many", id="and a question mark"),
        pytest.param("postgresql://u@host/db?ssl_mode=require", "'ssl_mode' is not an option", id="an unknown option"),
        pytest.param("postgresql://u@host/db?autocommit=1", "'autocommit' is not an option", id="an option of psycopg"),
        pytest.param("postgresql://u@host/db?plugin=x", "'plugin' is not an option", id="an option of SQLAlchemy"),
        pytest.param("postgresql://u@/db?host=a&port=x", "port in its options is not a number", id="no port there"),
        pytest.param("sqlite:///data/gateway.db?mode=ro", "no options", id="an option of a file"),
        pytest.param("sqlite:///file:gateway.db?uri=true", "no options", id="a file as SQLite names it"),
    ],
)
def test_an_address_that_can_t_be_meant_is_refused(url: str, reason: str) -> None:
    """In a sentence that repeats nothing of it, because it may be a part of the password."""
    with pytest.raises(ValueError, match=reason) as refusal:
        Database(url)
    assert "secret" not in str(refusal.value)
    assert "invalid literal" not in str(refusal.value)


@pytest.mark.parametrize(
    "option",
    ["sslmode=maybe", "connect_timeout=soon", "keepalives=x", "port=70000", "options=-c%20colour%3D1"],
)
def test_an_option_that_is_not_taken_ends_the_start(shared_postgres: databases.PostgresServer, option: str) -> None:
    """Who waited for a database that is away would wait for ever. The word at fault is told."""
    with (
        closing(Database(f"{shared_postgres.new_database()}?{option}")) as database,
        pytest.raises(SettingsError, match=r"DATABASE_URL: .*(maybe|soon|\"x\"|70000|colour)"),
    ):
        prepare(database)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h/db", "postgresql+psycopg://u:***@h/db"),
        ("postgresql://u%40server:sec%40ret@h/d%40b", "postgresql+psycopg://u%40server:***@h/d%40b"),
        ("postgresql://u@h/db?password=secret", "postgresql+psycopg://u@h/db?password=..."),
        (
            "postgresql://u@h/db?sslmode=require&sslpassword=secret",
            "postgresql+psycopg://u@h/db?sslmode=require&sslpassword=...",
        ),
    ],
)
def test_an_address_is_shown_without_passwords(url: str, shown: str) -> None:
    """Wherever in it they are."""
    with closing(Database(url)) as database:
        assert database.shown_url == shown


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "unable to open database file: Is a directory"),
        ("file/gateway.db", "unable to open database file: File exists"),
        ("file", "file is not a database"),
    ],
)
def test_a_file_that_can_t_be_used_is_told_with_its_reason(tmp_path: Path, place: str, reason: str) -> None:
    """SQLite itself says the same of a missing folder, of one that belongs to somebody else, and of a disk to read."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a database, but longer than its header would be" * 10)
    with (
        closing(Database(f"sqlite:///{tmp_path / place}")) as database,
        pytest.raises(DatabaseAway, match=f"^{reason}$"),
        database.transaction(reads=True),
    ):
        pass


def test_whoever_reads_doesn_t_wait_for_who_writes(database: Database, database_url: str) -> None:
    """Not even over a new connection."""
    with closing(Database(database_url)) as other, database.transaction() as writing:
        database.hold_back_writers(writing)
        writing.execute(text("DELETE FROM request"))
        with other.transaction(reads=True) as reading:
            assert list_keys(reading) == []


def test_what_was_written_during_a_long_report_doesn_t_keep_its_room(tmp_path: Path) -> None:
    """SQLite's further file grows while somebody reads what was before, and is short again soon after."""
    with closing(Database(f"sqlite:///{tmp_path}/gateway.db")) as database:

        def write(megabytes: int) -> int:
            for _ in range(megabytes):
                with database.transaction() as connection:
                    connection.execute(text("INSERT INTO filled VALUES (zeroblob(1000000))"))
            return (tmp_path / "gateway.db-wal").stat().st_size // 1_000_000

        with database.transaction() as connection:
            connection.execute(text("CREATE TABLE filled (bytes BLOB)"))
        with database.transaction(reads=True) as connection:
            connection.execute(text("SELECT count(*) FROM filled")).scalar()
            assert write(30) >= 30
        assert until(lambda: write(1) < 20)


def test_a_step_may_take_longer_than_a_statement(database_url: str) -> None:
    """What bounds all other statements doesn't bound those of a migration, and bounds others again afterwards."""
    with closing(Database(database_url, timeout=0.2)) as quick:
        if not quick.is_sqlite:
            slow = text("SELECT pg_sleep(0.5)")
            with quick.transaction(patient=True) as connection:
                connection.execute(slow)
            with pytest.raises(DatabaseAway, match="timeout"), quick.transaction() as connection:
                connection.execute(slow)
        else:
            with quick.transaction(patient=True) as connection:
                assert _busy_timeout(connection) > 1000
            with quick.transaction() as connection:
                assert _busy_timeout(connection) == 200


def test_a_connection_in_use_at_the_end_is_closed_when_its_work_is_done(database_url: str) -> None:
    """Whoever closes the database doesn't wait for a report that takes long; its connection isn't left open."""
    database = Database(database_url)
    with database.transaction(reads=True) as connection:
        raw: Any = connection.connection.dbapi_connection
        database.close()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    if database.is_sqlite:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            raw.execute("SELECT 1")
    else:
        assert raw.closed


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("how", ["run", "report"])
async def test_whoever_is_told_to_stop_stops_though_the_work_is_just_done(
    database: Database, how: str, turns: int
) -> None:
    """In whatever turn of the event loop the two meet: a task that went on would never end, nor would the process."""
    is_running, may_end = threading.Event(), threading.Event()

    def work(_: Connection) -> None:
        is_running.set()
        may_end.wait()

    async def ask() -> None:
        await getattr(database, how)(work)
        await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await asyncio.to_thread(is_running.wait)
    may_end.set()
    executor = database._thread if how == "run" else database._reports
    executor.submit(int).result()  # the work has ended, and the event loop has not had a turn since
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=WAIT_SECONDS)
    assert task in done
    assert task.cancelled()


def _busy_timeout(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0)
