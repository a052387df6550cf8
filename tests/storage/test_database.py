"""A transaction waits for others no longer than it has to, and no shorter than it may."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app.storage.database import Database, DatabaseAway
from app.storage.keys import list_keys
from tests import databases

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


def test_whoever_reads_doesn_t_wait_for_who_writes(database: Database, database_url: str) -> None:
    """Not even over a new connection."""
    with closing(Database(database_url, timeout=0.1)) as other, database.transaction() as writing:
        database.hold_back_writers(writing)
        writing.execute(text("DELETE FROM request"))
        with other.transaction(reads=True) as reading:
            assert list_keys(reading) == []


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


def _busy_timeout(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0)
