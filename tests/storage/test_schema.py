"""The database gets its tables once, whoever comes first, and is never half changed."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from app.storage import schema
from app.storage.database import Database, DatabaseAway
from app.storage.partial_indexes import add_partial_indexes
from app.storage.schema import HEAD, SchemaError, migrate, version_of
from app.storage.tables import metadata
from tests import databases

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


def test_the_steps_make_the_tables_that_statements_use(database: Database) -> None:
    """After all steps the database has exactly the tables, columns and indexes of `tables`."""
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        add_partial_indexes()
        assert compare_metadata(context, metadata) == []


def test_a_second_start_finds_nothing_to_do(empty_database: Database) -> None:
    """Only the first start changes anything."""
    assert migrate(empty_database)
    assert not migrate(empty_database)


def test_head_is_the_newest_step() -> None:
    """The version that the code knows is the last of the steps, which follow each other in one line."""
    folder = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert folder.get_heads() == [HEAD]


def test_several_that_start_at_once_don_t_collide(empty_database: Database, database_url: str) -> None:
    """Workers that start together on an empty database all end up with a good one."""
    failures: list[BaseException] = []

    def start() -> None:
        own = Database(database_url, timeout=20)
        try:
            migrate(own)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with empty_database.transaction(reads=True) as connection:
        assert version_of(connection) == HEAD


def test_a_newer_schema_is_refused_in_one_sentence(database: Database) -> None:
    """A gateway that was set back doesn't touch what a newer one has made."""
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match=r"version '9999'.*a newer gateway made it\. Update this one"):
        migrate(database)


def test_a_step_that_fails_changes_nothing(empty_database: Database) -> None:
    """A table that is in the way ends the attempt; none of the others is made."""
    with empty_database.transaction() as connection:
        connection.execute(text("CREATE TABLE price (id INTEGER)"))
    with pytest.raises(
        SchemaError, match=f"could not be brought from version none to {HEAD}; nothing was changed: .*price"
    ):
        migrate(empty_database)
    with empty_database.transaction(reads=True) as connection:
        assert inspect(connection).get_table_names() == ["price"]
    assert not empty_database.prepared


async def test_nothing_runs_before_the_tables_are_known_to_be_right(empty_database: Database) -> None:
    """A database without tables counts as away, instead of failing each statement in its own way."""
    with pytest.raises(DatabaseAway, match="its tables have not been looked at yet"):
        await empty_database.run(version_of)


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "nonsense", ""])
def test_an_address_that_can_t_be_used_is_refused(url: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match=r"sqlite|file"):
        Database(url)


def test_a_password_is_never_shown() -> None:
    """Neither by the address that is shown, nor by the reason of a failure."""
    database = Database("postgresql://gateway:geheim@127.0.0.1:1/gateway", timeout=2)
    assert "geheim" not in database.shown_url
    with pytest.raises(DatabaseAway) as caught, database.transaction():
        pass
    assert "refused" in str(caught.value)
    assert "geheim" not in str(caught.value)
    database.close()


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    """Neither the database nor what SQLite keeps beside it."""
    database = Database(f"sqlite:///{tmp_path}/new/gateway.db")
    migrate(database)
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "new").iterdir()}
    database.close()
    assert "gateway.db" in modes
    assert set(modes.values()) == {0}
