"""`main.py people`, on a database of each kind."""

import json
from typing import Any

from app.people.sign_in import Origin, SignInFault, sign_in_with_ticket
from app.storage.audit import actions_before
from app.storage.database import Database
from tests.cli.conftest import Run


def _opens(database: Database, printed: str) -> bool:
    """Whether the link in a text signs somebody in."""
    ticket = printed.partition("#")[2].partition("\n")[0]
    try:
        with database.transaction() as connection:
            sign_in_with_ticket(connection, ticket, Origin(""))
    except SignInFault:
        return False
    return True


def _people(run: Run) -> dict[str, Any]:
    return {one["name"]: (one["role"], one["is_disabled"]) for one in json.loads(run("people", "list", "--json"))}


def test_people_are_added_changed_and_let_in(run: Run, database: Database) -> None:
    """By name or id; each change is written down once, and no link is."""
    assert "people create NAME" in run("people", "list")
    printed = run("people", "create", "ada", "--role", "admin", "--base-url", "https://gateway.example.com/")
    assert printed.startswith("https://gateway.example.com/console/#")
    assert (_opens(database, printed), _opens(database, printed)) == (True, False)
    grace = json.loads(run("people", "create", "grace", "--json"))
    assert _people(run) == {"ada": ("admin", False), "grace": ("viewer", False)}
    run("people", "role", "grace", "admin")
    assert json.loads(run("people", "role", grace["id"], "admin", "--json"))["role"] == "admin"
    assert json.loads(run("people", "disable", grace["id"], "--json"))["is_disabled"]
    assert not _opens(database, grace["link"])
    assert "disabled" in run("people", "link", "grace", fails=True)
    assert "disabled" in run("people", "list")
    run("people", "enable", "grace")
    link = json.loads(run("people", "link", "grace", "--json"))["link"]
    assert _opens(database, link)
    assert _people(run) == {"ada": ("admin", False), "grace": ("admin", False)}
    with database.transaction(reads=True) as connection:
        actions = actions_before(connection, None)
    subject = f"person:{grace['id']}"
    assert [one["action"] for one in reversed(actions) if one["subject"] == subject and one["via"] == "cli"] == [
        *("person.create", "person.link", "person.update", "person.disable", "person.enable", "person.link")
    ]
    assert link.partition("#")[2] not in str(actions)


def test_what_can_t_be_done_is_said_and_not_done(run: Run) -> None:
    """A name that is taken or wrong, nobody of that name, a role that nobody knows, and the last administrator."""
    run("people", "create", "ada", "--role", "admin")
    for words, complaint in (
        (("create", "ada"), "already exists"),
        (("create", " "), "1 to 60 characters"),
        (("link", "nobody"), "There is no person 'nobody'"),
        (("role", "ada", "holder"), "invalid choice"),
        (("role", "ada", "viewer"), "last administrator"),
        (("disable", "ada"), "last administrator"),
    ):
        assert complaint in run("people", *words, fails=True), words
    assert _people(run) == {"ada": ("admin", False)}
