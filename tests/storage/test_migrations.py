"""Whatever version a database has, the steps make it the newest one, with all that is in it, or leave it as it is."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

from app.assembly.database import prepare
from app.settings import SettingsError
from app.storage.audit import Actor, note_action
from app.storage.database import Database
from app.storage.keys import list_keys
from app.storage.moving import MoveFault, copy_all
from app.storage.partial_indexes import add_partial_indexes
from app.storage.request_pages import RowFilter, page_of_rows, rows_of_request, scan_of_rows
from app.storage.schema import HEAD, NEW_SQLITE, SchemaError, migrate, version_of
from app.storage.tables import metadata, secrets, usage
from app.storage.usage import DAY, usage_by
from tests import databases
from tests.storage.calls import call, some_calls, write
from tests.storage.new_sqlite import new_sqlite
from tests.storage.steps import FOLDER, upgrade

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_AT = 1_764_000_000_000
_KEYS_0001 = [
    "INSERT INTO project VALUES ('p_1', 'lab', 1)",
    "INSERT INTO api_key VALUES ('k_ada', 'p_1', 'ada', '[\"chat\"]', NULL, '', 1, NULL, NULL, NULL)",
    "INSERT INTO key_secret VALUES ('digest', 'k_ada', 'sk-kimi-…', 1, NULL)",
    "INSERT INTO change (subject, at) VALUES ('k_ada', 1)",
    "INSERT INTO journal VALUES ('j', 1, 100, 1)",
    "INSERT INTO price VALUES ('kimi', 0, 1, 2, 3)",
]
_SUMS_0001 = ", ".join(["0"] * 16)
# What each older version is filled with. A row of requests: id, request id, key, model, served, outcome, error.
_FILLED: dict[str, list[str]] = {
    "0001": [
        *_KEYS_0001,
        *(
            f"INSERT INTO usage VALUES ('day', '', 0, '{model}', 'kimi-web', 'completed', 1, 1, {_SUMS_0001})"
            for model in ("kimi", "unlisted")
        ),
        *(
            f"INSERT INTO request VALUES ({(_AT << 22) + place}, '{request_id}', '{key}', 'lab', '{model}', {served}, "
            f"'kimi-web', 'openai', '{outcome}', {error}, 200, 1, 3, 4, 0, 1, 17, 1500, 500, "
            "'session-1', NULL, 2, NULL)"
            for place, (request_id, key, model, served, outcome, error) in enumerate(
                [
                    ("req_0123456789abcdef0123456789abcdef", "k_ada", "kimi", "NULL", "completed", "NULL"),
                    ("of-a-client", "k_ada", "gpt-4o", "'kimi'", "failed", "'upstream_timeout'"),
                    ("req_1", "key-of-environment", "made-up", "NULL", "abandoned", "NULL"),
                    ("req_2", "k_ada", "alias", "'made-up'", "completed", "NULL"),
                ]
            )
        ),
    ],
    "0002": [
        *_KEYS_0001,
        "INSERT INTO name (text) VALUES ('k_ada'), ('lab'), ('kimi'), ('kimi-web'), ('openai')",
        f"INSERT INTO usage VALUES ('day', '', 0, 'kimi', 'kimi-web', 'completed', 1, 1, {_SUMS_0001})",
        (
            f"INSERT INTO request VALUES ({_AT << 22}, NULL, 17, 1, 2, 3, 4, 5, 3, 4, 0, 1500, 500, 2, 200, 1, 1, "
            "NULL, NULL, 'of-a-client', NULL, NULL, 'session-1', NULL, NULL)"
        ),
    ],
}
_FILLED["0003"] = [
    *_FILLED["0002"],
    "INSERT INTO limits VALUES ('key:k_ada', '60 requests/minute', 1)",
    "INSERT INTO bucket VALUES ('key:k_ada|requests/minute', 60, 59.5, 1, 0, 1)",
    "INSERT INTO lease VALUES ('key:k_ada|requests/minute', 'w_1', 1, 0)",
    "INSERT INTO spent VALUES ('key:k_ada', 0, 'kimi', 'kimi-web', 1, 3, 4, 0)",
]
_FILLED["0004"] = [
    *_FILLED["0003"],
    "INSERT INTO audit (at, actor, via, action, subject) VALUES (1, 'ada', 'cli', 'key.create', 'key:k_ada')",
    "INSERT INTO person VALUES ('p_1', 'ada', 'admin', NULL, 1, NULL)",
]
_FILLED["0005"] = [
    statement.replace("'session-1', NULL, NULL)", "'session-1', NULL, NULL, 1, 18, 1000, 0, 0, 'queue=5')")
    for statement in _FILLED["0004"]
]
_FILLED["0006"] = [
    *_FILLED["0005"],
    "INSERT INTO recording VALUES ('k_ada', 1, 2, 'ada', 8)",
    "INSERT INTO recorded_text VALUES (1, 1, 2, 8, 'k_ada', 'of-a-client', '', 'What?', 'What?', 'That.')",
]
_FILLED["0007"] = [
    *_FILLED["0006"],
    "INSERT INTO upstream VALUES ('gpu', '{}', NULL, 1, 1, 1, 1)",
    "INSERT INTO route VALUES ('kimi', '[\"gpu/m\"]', 1)",
]
_FILLED["0008"] = [
    statement.replace("'queue=5')", "'queue=5', 1, 2, 3)")
    .replace(f"1, 1, {_SUMS_0001})", f"1, 1, {_SUMS_0001}, 1, 2, 3, 4, 5)")
    .replace("'kimi', 0, 1, 2, 3)", "'kimi', 0, 1, 2, 3, 4, 5, 6, 7, 8)")
    for statement in _FILLED["0007"]
]
_OLDER = [step.revision for step in ScriptDirectory(FOLDER).walk_revisions() if step.revision != HEAD]


def _bring_to(database: Database, version: str) -> None:
    """Make a database as a gateway of that version would have."""
    with database.transaction() as connection:
        upgrade(connection, version)
        for statement in _FILLED[version]:
            connection.execute(text(statement))


def _described(database: Database) -> Any:
    """Everything that a schema consists of, as the database tells it."""
    with database.transaction(reads=True) as connection:
        if database.is_sqlite:
            query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
            return connection.execute(text(query)).all()
        columns = connection.execute(
            text(
                "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
            )
        ).all()
        indexes = connection.execute(
            text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        ).all()
        constraints = connection.execute(
            text(
                "SELECT conname, contype, conrelid::regclass::text FROM pg_constraint WHERE conrelid > 0 ORDER BY 1, 3"
            )
        ).all()
        options = connection.execute(
            text("SELECT relname, reloptions::text FROM pg_class WHERE relname IN ('request', 'usage') ORDER BY 1")
        ).all()
        return columns, indexes, [row for row in constraints if not row[2].startswith("pg_")], options


@contextmanager
def _another(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A further empty database of the same kind."""
    is_sqlite = database_url.startswith("sqlite")
    url = f"sqlite:///{tmp_path}/another.db" if is_sqlite else request.getfixturevalue("shared_postgres").new_database()
    with closing(Database(url, timeout=5)) as another:
        yield another


@pytest.mark.parametrize("version", _OLDER)
def test_every_older_version_becomes_the_newest(
    empty_database: Database, database_url: str, tmp_path: Path, request: pytest.FixtureRequest, version: str
) -> None:
    """With rows in it, the schema is that of a new database, to the letter."""
    _bring_to(empty_database, version)
    assert migrate(empty_database)
    with _another(database_url, tmp_path, request) as new:
        migrate(new)
        assert _described(empty_database) == _described(new)
    with empty_database.transaction() as connection:
        add_partial_indexes()
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_every_older_version_is_tried() -> None:
    """Whoever adds a step says here what a database before it may have been filled with."""
    assert sorted(_FILLED) == sorted(_OLDER)


def test_a_new_file_is_what_the_steps_make_of_it() -> None:
    """Whoever adds a step writes the script of new files anew: `python -m tests.storage.new_sqlite`."""
    assert NEW_SQLITE.read_text("utf-8") == new_sqlite()


def test_rows_survive_the_second_step(empty_database: Database) -> None:
    """Each is told as before, and found by what it was found by."""
    _bring_to(empty_database, "0001")
    migrate(empty_database)
    with empty_database.transaction(reads=True) as connection:
        rows, _ = scan_of_rows(connection, RowFilter())
        told = [
            tuple(row[name] for name in ("request_id", "key_id", "model", "served", "outcome", "error")) for row in rows
        ]
        assert told == [
            ("req_0123456789abcdef0123456789abcdef", "k_ada", "kimi", None, "completed", None),
            ("of-a-client", "k_ada", "gpt-4o", "kimi", "failed", "upstream_timeout"),
            ("req_1", "key-of-environment", "made-up", None, "abandoned", None),
            ("req_2", "k_ada", "alias", "made-up", "completed", None),
        ]
        for row in rows:
            kept = {name: row[name] for name in ("project", "provider", "dialect", "status", "streamed", "estimated")}
            assert kept == {
                "project": "lab",
                "provider": "kimi-web",
                "dialect": "openai",
                "status": 200,
                "streamed": 1,
                "estimated": 1,
            }
            numbers = (
                "tokens_in",
                "tokens_out",
                "tokens_cached",
                "cost",
                "milliseconds",
                "first_milliseconds",
                "dropped",
            )
            assert [row[name] for name in numbers] == [3, 4, 0, 17, 1500, 500, 2]
            assert (row["session"], row["end_user"], row["passed_over"]) == ("session-1", None, None)
            assert rows_of_request(connection, row["request_id"]) == [row]
        assert len(page_of_rows(connection, RowFilter(key_id="k_ada")).rows) == 3
        assert len(page_of_rows(connection, RowFilter(trouble=True)).rows) == 2
        assert [key.name for key in list_keys(connection)] == ["ada"]
        assert sum(row["requests"] for row in usage_by(connection, since=0, until=DAY)) == 2
    write(empty_database, [call(at=_AT + 1, model="new", served="new")])


@pytest.mark.parametrize("version", _OLDER)
def test_a_step_that_fails_leaves_everything_as_it_was(empty_database: Database, version: str) -> None:
    """The start is refused in one sentence; schema, version and rows are those of before."""
    _bring_to(empty_database, version)
    with empty_database.transaction() as connection:
        missing = metadata.tables.keys() - set(inspect(connection).get_table_names())
        # What the steps still to come add last; they may add nothing but columns.
        obstacle = min(missing) if missing else secrets.c.keys()[-1]
        added = f"ALTER TABLE {secrets.name} ADD {obstacle} TEXT"
        in_the_way = f"CREATE TABLE {obstacle} (id INTEGER)" if missing else added
        connection.execute(text(in_the_way))
    before, rows = _described(empty_database), _all_rows(empty_database)
    said = f"could not be brought from version {version} to {HEAD}; nothing was changed: [^\n]*{obstacle}[^\n]*$"
    with pytest.raises(SchemaError, match=said):
        migrate(empty_database)
    with pytest.raises(SettingsError, match=f"DATABASE_URL: the database {said}"):
        prepare(empty_database)
    assert _described(empty_database) == before
    assert _all_rows(empty_database) == rows
    assert not empty_database.prepared
    with empty_database.transaction(reads=True) as connection:
        assert version_of(connection) == version


def _all_rows(database: Database) -> dict[str, Any]:
    with database.transaction(reads=True) as connection:
        return {
            name: sorted(connection.execute(text(f"SELECT * FROM {name}")).all(), key=str)
            for name in inspect(connection).get_table_names()
        }


def test_whoever_comes_while_another_one_migrates_waits(empty_database: Database, database_url: str) -> None:
    """Longer than anything else may take, instead of refusing to start."""
    _bring_to(empty_database, _OLDER[0])
    with closing(Database(database_url, timeout=0.1)) as later:
        thread = threading.Thread(target=migrate, args=(later,))
        with empty_database.transaction() as connection:
            empty_database.hold_back_writers(connection)
            thread.start()
            thread.join(1)
            assert thread.is_alive()
        thread.join()
        assert later.prepared


def test_everything_moves_into_another_database(
    database: Database, database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """To the same kind and into an SQLite file, and the copy can be written to like the original."""
    calls = some_calls(2500, begin=_AT, milliseconds=DAY)
    write(database, calls)
    with database.transaction() as connection:
        for statement in _KEYS_0001[:4]:
            connection.execute(text(statement.replace("'sk-kimi-…', 1, NULL)", "'sk-kimi-…', 1, NULL, 60000)")))
        note_action(connection, Actor("ada", "cli"), "key.create", "key:k_ada")
    with _another(database_url, tmp_path, request) as same, closing(Database(f"sqlite:///{tmp_path}/copy.db")) as file:
        for copy in (same, file):
            counts = copy_all(database, copy)
            assert (counts["request"], counts["api_key"]) == (2500, 1)
            with database.transaction(reads=True) as ours, copy.transaction(reads=True) as theirs:
                assert scan_of_rows(ours, RowFilter()) == scan_of_rows(theirs, RowFilter())
                assert _sums(ours) == _sums(theirs)
            with pytest.raises(MoveFault, match="has rows"):
                copy_all(database, copy)
            with copy.transaction() as connection:
                note_action(connection, Actor("ada", "cli"), "key.create", "key:k_ada")
            # New names get new numbers.
            write(copy, [call(at=_AT + 2 * DAY, key_id="k_new", model="new", served="new", provider="new")], journal=3)
            with copy.transaction(reads=True) as connection:
                (row,) = page_of_rows(connection, limit=1).rows
            assert (row["key_id"], row["model"], row["provider"]) == ("k_new", "new", "new")


def _sums(connection: Connection) -> list[Any]:
    return [tuple(row) for row in connection.execute(select(usage).order_by(*usage.primary_key))]
