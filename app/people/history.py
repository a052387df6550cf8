"""What the audit log has of people: never a ticket or a password."""

from app.storage.audit import Actor, note_action, note_update
from app.storage.database import Connection
from app.storage.people import Person


def person_facts(person: Person) -> dict[str, object]:
    """The fields of a person that an administrator can change."""
    return {"name": person.name, "role": person.role, "is_disabled": person.disabled_at is not None}


def note_created(connection: Connection, actor: Actor, person: Person) -> None:
    """Write down that a person was added."""
    note_action(connection, actor, "person.create", f"person:{person.id}", after=person_facts(person))


def note_changed(connection: Connection, actor: Actor, action: str, before: Person, after: Person) -> None:
    """Write down how a person has changed; nothing if nothing has.

    Args:
        action: Such as `person.disable`.
    """
    note_update(connection, actor, action, f"person:{after.id}", person_facts(before), person_facts(after))


def note_link(connection: Connection, actor: Actor, person: Person) -> None:
    """Write down that a link was made for a person."""
    note_action(connection, actor, "person.link", f"person:{person.id}")


def note_logins_ended(connection: Connection, actor: Actor, person: Person, ended: int) -> None:
    """Write down that a person was signed out, in so many places."""
    note_action(connection, actor, "login.end", f"person:{person.id}", after={"ended": ended})
