"""Keys at the command line."""

import json

from app.keys.secret import digest_of
from app.storage.clock import now
from app.storage.database import Database
from app.storage.keys import note_last_uses
from tests.cli.conftest import Run


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
