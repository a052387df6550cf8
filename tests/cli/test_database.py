"""`main.py database`: copies, and what is said of the other side."""

from pathlib import Path

import pytest
from sqlalchemy import text

from app.cli.database_access import CommandFault
from app.cli.database_use import check_unused
from app.storage.clock import now
from app.storage.database import Database
from app.storage.limits import Worker, exchange
from tests.cli.conftest import Run
from tests.ports import free_port

WORKER = Worker("w_1", "mercury", "1", now())


def test_a_target_that_can_t_be_reached_is_named(run: Run) -> None:
    """Whoever moves a database looks for the fault in the address that was given, not in `DATABASE_URL`."""
    told = run("database", "move", f"postgresql://gateway:hidden-word@127.0.0.1:{free_port()}/new", fails=True)
    assert "/new can't be used: " in told
    assert "DATABASE_URL" not in told
    assert "hidden-word" not in told


def test_a_copy_goes_into_a_new_file_of_any_name(run: Run, tmp_path: Path) -> None:
    """No folder is made and no file is replaced; and a name may have characters that mean something in an address."""
    assert run("database", "backup", "later/copy.db", fails=True).startswith("There is no folder later; make it first")
    for name in ("really?.db", ":memory:"):
        assert f"Backed up to {name}. " in run("database", "backup", name)
    assert "exists; name a new file" in run("database", "backup", "really?.db", fails=True)
    assert {path.name for path in tmp_path.iterdir()} - {"gateway.db", "gateway.db-shm", "gateway.db-wal"} == {
        "really?.db",
        ":memory:",
    }


def test_nothing_is_made_of_a_copy_of_a_database_without_tables(
    run_without_tables: Run, empty_database: Database
) -> None:
    """A file that looks like a backup and holds nothing would be found out too late."""
    with empty_database.transaction(reads=True):
        pass  # makes the file
    assert "no tables yet; run `database migrate` first" in run_without_tables(
        "database", "backup", "copy.db", fails=True
    )
    assert "no tables yet" in run_without_tables("database", "move", "sqlite:///copy.db", fails=True)
    assert not Path("copy.db").exists()


def test_a_database_is_not_moved_into_itself(run: Run, database: Database) -> None:
    """Its rows would not be lost, but the message about the target's rows would lead nowhere."""
    address = database.url.render_as_string(hide_password=False)
    assert "is the database itself (DATABASE_URL)" in run("database", "move", address, fails=True)


def test_a_database_that_a_gateway_uses_is_not_moved(database: Database) -> None:
    """What comes while it is copied would be lost. The next sign of life tells that a worker still runs."""
    _beat(database, 1)
    with pytest.raises(CommandFault, match=r"uses the database .1 worker on mercury.*--even-if-in-use"):
        check_unused(database, lambda _: _beat(database, 2))


def test_a_gateway_that_was_just_stopped_is_waited_for(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Its workers don't sign off: they count as stopped when no sign of life has come for long enough."""
    _beat(database, 1)

    def pause(_: float) -> None:
        with database.transaction() as connection:
            connection.execute(text("UPDATE worker SET beat = beat - 10000"))

    check_unused(database, pause)
    assert "1 worker on mercury used it a moment ago" in capsys.readouterr().err


def test_a_database_can_be_moved_although_a_gateway_uses_it(run: Run, database: Database) -> None:
    """Whoever knows better may say so, and waits for nothing."""
    _beat(database, 1)
    assert "Moved to sqlite:///copy.db" in run("database", "move", "sqlite:///copy.db", "--even-if-in-use")


def _beat(database: Database, number: int) -> None:
    with database.transaction() as connection:
        exchange(database, connection, WORKER, number, [])
