"""Keys at the command line."""

import json
import threading

import pytest
from sqlalchemy import text

from app.keys.administration import only_key, revoke_key
from app.keys.secret import digest_of
from app.storage.clock import now
from app.storage.database import Database
from app.storage.keys import note_last_uses
from tests.cli.conftest import Run
from tests.live import until


def test_a_key_is_shown_with_the_last_use_of_each_secret(run: Run, database: Database) -> None:
    """After a rotation one sees whether the old one is still in use, and for how long it will do."""
    old = json.loads(run("keys", "create", "ada", "--json"))
    run("keys", "rotate", "ada", "--grace", "24h")
    with database.transaction() as connection:
        note_last_uses(database, connection, digests=[digest_of(old["secret"])], at=now())
    newer, older = (line for line in run("keys", "show", "ada").splitlines() if line.startswith("secret "))
    assert newer.endswith(", no use noted")
    assert f"{old['secret'][-4:]}, last used 20" in older
    assert ", works until 20" in older
    shown = json.loads(run("keys", "show", "ada", "--json"))["secrets"]
    assert [one["last_used_at"] is None for one in shown] == [True, False]
    assert [one["valid_until"] is None for one in shown] == [True, False]
    assert "works until" not in run("keys", "revoke", "ada")


def test_a_key_expires_at_the_end_of_a_day_or_never(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day is that of `TIME_ZONE`, as in the console and the admin API; an end can be taken away again."""
    monkeypatch.setenv("TIME_ZONE", "Asia/Shanghai")
    run("keys", "create", "ada", "--expires", "2030-01-31")
    assert "2030-01-31 16:00" in run("keys", "show", "ada")
    run("keys", "update", "ada", "--expires", "never")
    assert "expires" not in run("keys", "show", "ada")
    assert "is not a date such as 2027-01-31" in run("keys", "update", "ada", "--expires", "soon", fails=True)


@pytest.mark.parametrize("action", ["pause", "resume", "rotate"])
def test_a_revoked_key_stays_revoked(run: Run, action: str) -> None:
    """Whoever wants to have it back is told that it is gone, instead of that it is still revoked."""
    key = json.loads(run("keys", "create", "ada", "--json"))
    run("keys", "revoke", "ada")
    assert run("keys", action, key["id"], fails=True) == "The key 'ada' is revoked; make a new one.\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("update ada --name", "The name must have 1 to 100 characters"),
        ("rotate ada --grace 9999d", "The grace must not exceed 366d."),
        ("update ada --expires 99999w", "is more than a hundred years; write `never`"),
    ],
)
def test_a_value_that_can_t_be_kept_is_refused(run: Run, words: str, told: str) -> None:
    """An empty name is none, and times end where no list could show them any more."""
    run("keys", "create", "ada")
    given = words.split()
    assert told in run("keys", *given, *([""] if given[-1] == "--name" else []), fails=True)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("words", ["update ada --note hers", "resume ada"])
def test_a_key_that_is_revoked_meanwhile_stays_revoked(run: Run, database: Database, words: str) -> None:
    """Whoever changes a key at the same time reads it when the other one is done: nothing brings it back."""
    key = json.loads(run("keys", "create", "ada", "--json"))
    command = threading.Thread(target=run, args=("keys", *words.split()), kwargs={"fails": True})
    with database.transaction() as connection:
        revoke_key(database, connection, only_key(connection, "ada"))
        command.start()
        until(lambda: _waiting(database) == 1)
    command.join()
    assert json.loads(run("keys", "show", key["id"], "--json"))["state"] == "revoked"


def _waiting(database: Database) -> int:
    """How many wait for the lock of those who write."""
    with database.transaction(reads=True) as connection:
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return int(connection.execute(waiting).scalar_one())


def test_commands_for_a_terminal_in_what_is_known_of_a_key_are_not_printed(run: Run) -> None:
    """Neither in a note nor in a name, whichever command shows it."""
    shown = run("keys", "create", "a\x9bda", "--note", "\x1b[31mred")
    shown += run("keys", "show", "a\x9bda") + run("keys", "list")
    assert "a�da" in shown
    assert "�[31mred" in shown
    assert not {"\x1b", "\x9b"} & set(shown)
