"""What an administrator does with people. Each function is one transaction's work."""

import re

from msgspec.structs import replace

from app.keys.secret import make_id
from app.people.sign_in import make_link_ticket, where_signed_in
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.people import (
    Login,
    NameTaken,
    Person,
    add_person,
    change_person,
    end_login,
    find_person,
    list_people,
)

ROLES = ("admin", "viewer")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,60}")


class PersonFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked.

    Args:
        param: The field at fault.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def new_person(connection: Connection, name: str, role: str) -> Person:
    """Add a person, who signs in by links until there is a password.

    Raises:
        PersonFault: A value is wrong, or the name is taken.
    """
    person = Person(make_id("p_"), name, role, None, now(), None)
    _check(person)
    try:
        add_person(connection, person)
    except NameTaken:
        raise _taken(name) from None
    return person


def person_to_change(database: Database, connection: Connection, person_id: str) -> Person | None:
    """The person of an id. Until the end of the transaction nobody else changes people this way."""
    database.hold_back_writers(connection)
    return find_person(connection, person_id=person_id)


def only_person(connection: Connection, words: str) -> Person:
    """The person whom an id or a name means.

    Raises:
        PersonFault: There is none.
    """
    person = find_person(connection, person_id=words) or find_person(connection, name=words)
    if person is None:
        raise PersonFault(f"There is no person {words!r}.")
    return person


def update_person(connection: Connection, person: Person) -> Person:
    """Write a person who was changed, from `person_to_change`. Whoever is disabled is signed out everywhere.

    Raises:
        PersonFault: A value is wrong, the name is taken, or nobody would be left who may change anything.
    """
    _check(person)
    administrators = [one.id for one in list_people(connection) if _administers(one)]
    if administrators == [person.id] and not _administers(person):
        param = "role" if person.disabled_at is None else "disabled"
        raise PersonFault(f"{person.name!r} is the last administrator; add another one first.", param)
    try:
        change_person(connection, person)
    except NameTaken:
        raise _taken(person.name) from None
    return person


def disable_person(connection: Connection, person: Person, by: Login) -> Person:
    """Sign a person out everywhere, and let nobody sign in as that person until `enable_person`.

    Raises:
        PersonFault: People can't do that to themselves: an administrator is left whatever happens.
    """
    if person.id == by.person_id:
        raise PersonFault("You can't disable yourself; another administrator can.")
    return update_person(connection, replace(person, disabled_at=person.disabled_at or now()))


def enable_person(connection: Connection, person: Person) -> Person:
    """Let a person sign in again."""
    return update_person(connection, replace(person, disabled_at=None))


def make_ticket_for(connection: Connection, person: Person) -> str:
    """A ticket for one login of a person, as `make_link_ticket` makes it.

    Raises:
        PersonFault: The person is disabled.
    """
    if person.disabled_at is not None:
        raise PersonFault("This person is disabled.")
    return make_link_ticket(connection, person)


def end_logins(connection: Connection, person: Person, digest: str | None = None) -> int:
    """Sign a person out.

    Args:
        digest: Of the only login to be ended; None for all.

    Returns:
        How many were ended.
    """
    logins = where_signed_in(connection, person_id=person.id)
    ended = [one.digest for one in logins if digest in (None, one.digest)]
    for one in ended:
        end_login(connection, one)
    return len(ended)


def _check(person: Person) -> None:
    if not _NAME.fullmatch(person.name) or person.name != person.name.strip():
        raise PersonFault("The name must have 1 to 60 characters, without line breaks or spaces around it.", "name")
    if person.role not in ROLES:
        raise PersonFault("The role is admin or viewer.", "role")


def _administers(person: Person) -> bool:
    return person.role == "admin" and person.disabled_at is None


def _taken(name: str) -> PersonFault:
    return PersonFault(f"A person named {name!r} already exists.", "name")
