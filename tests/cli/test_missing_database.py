"""Commands on a path at which there is no database: what only looks makes none, so that a typing error is noticed."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where `DATABASE_URL` says that the database is."""
    return tmp_path / "data" / "typo.db"


@pytest.fixture
def database_url(file: Path) -> str:
    """Another one than the other tests' of this folder."""
    return f"sqlite:///{file}"


@pytest.mark.parametrize(
    "command",
    [
        "database check",
        "database backup copy.db",
        "database move sqlite:///other.db",
        "keys list --json",
        "keys revoke ada",
        "usage",
        "requests",
        "limits show gateway",
        "prices list",
        "people disable ada",
        "recordings list",
        "upstreams list",
        "routes list",
    ],
)
def test_what_needs_something_to_be_there_makes_no_database(run_without_tables: Run, file: Path, command: str) -> None:
    """It says which file is missing and what makes one, and leaves nothing behind."""
    told = run_without_tables(*command.split(), fails=True)
    assert told.startswith(f"There is no database {file} (DATABASE_URL) yet. ")
    assert "main.py database migrate" in told
    assert [*file.parent.parent.iterdir()] == []


@pytest.mark.parametrize(
    "command", ["database migrate", "keys create ada", "people create ada", "limits set gateway none"]
)
def test_what_puts_something_in_makes_a_database_and_says_so(run_without_tables: Run, file: Path, command: str) -> None:
    """The first key can be made before the first start; the second command finds the database there."""
    told = run_without_tables(*command.split())
    assert f"There was no database {file} (DATABASE_URL) yet; a new one is made." in told
    assert run_without_tables("keys", "list").count("There") == ("keys" not in command)
    assert "can be used" in run_without_tables("database", "check")
