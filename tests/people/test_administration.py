"""What an administrator does with people."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from app.people.administration import PersonFault, new_person, person_to_change, update_person
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.schema import migrate
from tests import databases
from tests.live import until

shared_postgres = databases.shared_postgres


@pytest.fixture
def database(shared_postgres: databases.PostgresServer) -> Iterator[Database]:
    """One where two may write at a time: SQLite lets one write anyway."""
    database = Database(shared_postgres.new_database(), timeout=10)
    migrate(database)
    yield database
    database.close()


def _disable(database: Database, connection: Connection, person_id: str) -> None:
    person = person_to_change(database, connection, person_id)
    assert person is not None
    update_person(connection, replace(person, disabled_at=now()))


def test_two_administrators_can_t_disable_each_other_at_once(database: Database) -> None:
    """Whoever comes second, on another worker, waits for the first and learns that nobody else is left."""
    with database.transaction() as connection:
        first, second = (new_person(connection, name, "admin") for name in ("ada", "grace"))

    def disable_second() -> None:
        with database.transaction() as connection:
            _disable(database, connection, second.id)

    def is_waiting() -> bool:
        with database.transaction(reads=True) as connection:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return bool(connection.exec_driver_sql(waiting).scalar())

    with ThreadPoolExecutor() as threads:
        with database.transaction() as connection:
            _disable(database, connection, first.id)
            other = threads.submit(disable_second)
            until(lambda: other.done() or is_waiting())
        with pytest.raises(PersonFault, match="last administrator"):
            other.result()
