"""`main.py people`: says who may sign in to the console."""

import argparse
from typing import Any

from msgspec.structs import replace

from app.cli.console_link import add_base_url, link_below, print_link
from app.cli.database_access import open_database, operator, print_json, print_table, time_text, told
from app.people.administration import ROLES, make_ticket_for, new_person, only_person, update_person
from app.people.history import note_changed, note_created, note_link, person_facts
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.people import Person, list_people


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    purposes = {
        "list": "show all people",
        "create": "add a person, and print a link that signs them in once",
        "role": "let a person change things (admin), or look only (viewer)",
        "disable": "sign a person out everywhere, until they are enabled",
        "enable": "let a person sign in again",
        "link": "print a link that signs a person in once",
    }
    for action, purpose in purposes.items():
        subparser = actions.add_parser(action, help=purpose)
        subparser.add_argument("--json", action="store_true", help="print JSON")
        if action != "list":
            subparser.add_argument("person", metavar="NAME", help="the name" if action == "create" else "name or id")
        if action in ("create", "link"):
            add_base_url(subparser)
    actions.choices["create"].add_argument("--role", choices=ROLES, default="viewer", help="(default: viewer)")
    actions.choices["role"].add_argument("role", choices=ROLES)


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _done(options: argparse.Namespace) -> int:
    with open_database(may_make=options.action == "create") as database:
        if options.action == "list":
            with database.transaction(reads=True) as connection:
                people = list_people(connection)
            if options.json:
                print_json([_plain(person) for person in people])
            else:
                _print_list(people)
        elif options.action in ("create", "link"):
            with database.transaction() as connection:
                person, ticket = _with_ticket(connection, options)
            link = link_below(options.base_url, ticket)
            if options.json:
                print_json(_plain(person) | {"link": link})
            else:
                print_link(link, is_address_known=options.base_url is not None)
        else:
            with database.transaction() as connection:
                person = _changed(database, connection, options)
            if options.json:
                print_json(_plain(person))
            else:
                _print_list([person])
    return 0


def _with_ticket(connection: Connection, options: argparse.Namespace) -> tuple[Person, str]:
    if options.action == "create":
        person = new_person(connection, options.person, options.role)
        note_created(connection, operator(), person)
    else:
        person = only_person(connection, options.person)
    ticket = make_ticket_for(connection, person)
    note_link(connection, operator(), person)
    return person, ticket


def _changed(database: Database, connection: Connection, options: argparse.Namespace) -> Person:
    database.hold_back_writers(connection)
    before = only_person(connection, options.person)
    match options.action:
        case "disable":
            after = replace(before, disabled_at=before.disabled_at or now())
        case "enable":
            after = replace(before, disabled_at=None)
        case _:
            after = replace(before, role=options.role)
    action = "update" if options.action == "role" else options.action
    note_changed(connection, operator(), f"person.{action}", before, update_person(connection, after))
    return after


def _print_list(people: list[Person]) -> None:
    if not people:
        print("There are no people yet; add one with: python main.py people create NAME")
    else:
        print_table(
            ("ID", "NAME", "ROLE", "STATE", "SINCE"),
            (
                (
                    person.id,
                    person.name,
                    person.role,
                    "active" if person.disabled_at is None else "disabled",
                    time_text(person.created_at),
                )
                for person in people
            ),
        )


def _plain(person: Person) -> dict[str, Any]:
    """A person without the password."""
    return {"id": person.id, **person_facts(person), "created_at": person.created_at}
