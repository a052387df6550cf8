"""What is changed at the command line is written down, in the transaction that changes it."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from app.storage.audit import actions_before
from app.storage.database import Database
from tests.cli.conftest import Run


def _actions(database: Database) -> list[dict[str, Any]]:
    """All that was written down, the oldest first."""
    with database.transaction(reads=True) as connection:
        return actions_before(connection, None, limit=200)[::-1]


def test_every_change_is_written_down_and_nothing_else(run: Run, database: Database, tmp_path: Path) -> None:
    """Who has changed what, from what to what; not what was only read, was refused, or has changed nothing."""
    made = json.loads(run("keys", "create", "ada", "--project", "lab", "--limits", "5 at once", "--json"))
    key, secret = made["id"], made["secret"]
    run("keys", "list")
    run("keys", "show", "ada")
    run("keys", "update", "ada", "--note", "hers", "--limits", "6 at once")
    run("keys", "update", "ada", "--note", "hers")
    run("keys", "pause", "ada")
    run("keys", "pause", "ada")
    run("keys", "resume", "ada")
    rotated = json.loads(run("keys", "rotate", "ada", "--grace", "24h", "--json"))["secret"]
    run("keys", "create", "ada", "--project", "lab", fails=True)
    run("limits", "set", "gateway", "60 requests/minute")
    run("limits", "set", "gateway", "60 requests/minute")
    run("limits", "show", "gateway")
    run("limits", "try", "gateway", "1 request/minute")
    run("limits", "unset", "gateway")
    prices = tmp_path / "prices.csv"
    prices.write_text("model,since,input,output\nkimi,2026-01-01,1,2\n", encoding="utf-8")
    run("prices", "import", str(prices))
    run("prices", "import", str(prices))
    run("keys", "revoke", "ada")
    actions = _actions(database)
    assert {(action["actor"], action["via"], action["address"]) for action in actions} == {
        (getpass.getuser(), "cli", None)
    }
    subject = f"key:{key}"
    assert [(action["action"], action["subject"]) for action in actions] == [
        ("key.create", subject),
        ("key.update", subject),
        ("key.pause", subject),
        ("key.resume", subject),
        ("key.rotate", subject),
        ("limits.set", "gateway"),
        ("limits.unset", "gateway"),
        ("prices.set", "prices"),
        ("key.revoke", subject),
    ]
    assert actions[0]["after"]["limits"] == "5 at once"
    assert (actions[1]["before"], actions[1]["after"]) == (
        {"limits": "5 at once", "note": ""},
        {"limits": "6 at once", "note": "hers"},
    )
    assert (actions[5]["before"], actions[5]["after"]) == (None, {"limits": "60 requests/minute"})
    assert actions[6]["before"] == {"limits": "60 requests/minute"}
    assert not any(one in json.dumps(actions) for one in (secret, rotated))


def test_a_user_without_a_name_is_told_by_number(run: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as whoever is convenient."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    run("keys", "create", "ada")
    [action] = _actions(database)
    assert action["actor"].startswith("uid ")
