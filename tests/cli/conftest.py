"""Commands, run in the test's own process on a database of each kind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.commands import main
from app.storage.database import Database
from tests import databases
from tests.live import ALICE_KEY

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

Run = Callable[..., str]


@pytest.fixture
def run(database: Database, run_without_tables: Run) -> Run:
    """Runs a command and returns what it prints, together with what it complains of."""
    assert database.prepared
    return run_without_tables


@pytest.fixture
def run_without_tables(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The same with nothing in the database, or none at all."""
    monkeypatch.chdir(tmp_path)  # where no .env is
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("API_MASTER_KEY", ALICE_KEY)

    def command(*words: str, fails: bool = False) -> str:
        try:
            status = main(words)
        except SystemExit as ended:  # argparse
            status = int(ended.code or 0)
        told = capsys.readouterr()
        assert bool(status) is fails, told
        return told.out + told.err

    return command
