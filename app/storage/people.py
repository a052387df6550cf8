"""People, their logins, and the tickets of links that sign in once."""

from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.storage import tables
from app.storage.clock import now

_PEOPLE, _LOGINS, _TICKETS, _AUDIT = tables.people, tables.logins, tables.tickets, tables.audit
# What the audit log calls it.
SIGN_IN = "person.sign_in"


class NameTaken(Exception):
    """Somebody else has this name."""


class Person(Struct, frozen=True):
    """Somebody who may sign in. Times are milliseconds since the epoch.

    Args:
        role: `admin`, or `viewer`, who may only look.
        password: As it was hashed; None for nobody but links.
    """

    id: str
    name: str
    role: str
    password: str | None
    created_at: int
    disabled_at: int | None


class Login(Struct, frozen=True):
    """Somebody who is signed in.

    Args:
        digest: Of the cookie.
        person_id: Who it is; None for a key's holder.
        key_id: Whose key it is; None for a person.
        csrf: What forms have to send with them.
        agent: The browser, as it calls itself.
    """

    digest: str
    person_id: str | None
    key_id: str | None
    csrf: str
    created_at: int
    seen_at: int
    expires_at: int
    agent: str


def list_people(connection: Connection) -> list[Person]:
    """All people, by name."""
    return [Person(**row) for row in connection.execute(select(_PEOPLE).order_by(_PEOPLE.c.name)).mappings()]


def find_person(connection: Connection, *, person_id: str | None = None, name: str | None = None) -> Person | None:
    """The person of an id or a name."""
    query = select(_PEOPLE).where(_PEOPLE.c.id == person_id if name is None else _PEOPLE.c.name == name)
    row = connection.execute(query).mappings().first()
    return None if row is None else Person(**row)


def add_person(connection: Connection, person: Person) -> None:
    """Add a person.

    Raises:
        NameTaken: See there.
    """
    try:
        connection.execute(insert(_PEOPLE).values(**_columns(person)))
    except IntegrityError:
        raise NameTaken from None


def change_person(connection: Connection, person: Person) -> None:
    """Write a person's fields; whoever is disabled is signed out everywhere.

    Raises:
        NameTaken: See there.
    """
    try:
        connection.execute(update(_PEOPLE).where(_PEOPLE.c.id == person.id).values(**_columns(person)))
    except IntegrityError:
        raise NameTaken from None
    if person.disabled_at is not None:
        connection.execute(delete(_LOGINS).where(_LOGINS.c.person_id == person.id))
        connection.execute(delete(_TICKETS).where(_TICKETS.c.person_id == person.id))


def add_ticket(connection: Connection, digest: str, person_id: str, expires_at: int) -> None:
    """Keep a ticket; those that have expired go."""
    connection.execute(delete(_TICKETS).where(_TICKETS.c.expires_at <= now()))
    connection.execute(insert(_TICKETS).values(digest=digest, person_id=person_id, expires_at=expires_at))


def take_ticket(connection: Connection, digest: str) -> Person | None:
    """Use a ticket up; whose it was, or None if it is used, expired, or was never given."""
    row = connection.execute(select(_TICKETS).where(_TICKETS.c.digest == digest, _TICKETS.c.expires_at > now())).first()
    # Of two who come at once, the one who deletes it has it.
    if row is None or connection.execute(delete(_TICKETS).where(_TICKETS.c.digest == digest)).rowcount != 1:
        return None
    person = find_person(connection, person_id=row.person_id)
    return person if person is not None and person.disabled_at is None else None


def add_login(connection: Connection, login: Login) -> None:
    """Keep a login; those that have expired go."""
    connection.execute(delete(_LOGINS).where(_LOGINS.c.expires_at <= now()))
    connection.execute(insert(_LOGINS).values({name: getattr(login, name) for name in Login.__struct_fields__}))


def find_login(connection: Connection, digest: str, *, idle_since: int) -> Login | None:
    """A login that counts.

    Args:
        idle_since: One that was last seen before this time counts no more.
    """
    query = select(_LOGINS).where(
        _LOGINS.c.digest == digest, _LOGINS.c.expires_at > now(), _LOGINS.c.seen_at >= idle_since
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else Login(**row)


def touch_login(connection: Connection, digest: str) -> None:
    """Note that a login was used."""
    connection.execute(update(_LOGINS).where(_LOGINS.c.digest == digest).values(seen_at=now()))


def end_login(connection: Connection, digest: str) -> None:
    """Sign out."""
    connection.execute(delete(_LOGINS).where(_LOGINS.c.digest == digest))


def logins_of(connection: Connection, *, person_id: str | None, key_id: str | None, idle_since: int = 0) -> list[Login]:
    """Where somebody is signed in, the newest first: a person, or the holder of a key.

    Args:
        idle_since: As `find_login` has it.
    """
    # `== None` would find everybody else's.
    whose = _LOGINS.c.person_id == person_id if key_id is None else _LOGINS.c.key_id == key_id
    counts = (_LOGINS.c.expires_at > now()) & (_LOGINS.c.seen_at >= idle_since)
    query = select(_LOGINS).where(whose, counts).order_by(_LOGINS.c.created_at.desc())
    return [Login(**row) for row in connection.execute(query).mappings()]


def has_anybody_signed_in(connection: Connection) -> bool:
    """Whether a person has ever signed in. People and logins may be gone by now; the audit log stays."""
    query = select(_AUDIT.c.number).where(_AUDIT.c.action == SIGN_IN).limit(1)
    return connection.execute(query).first() is not None


def _columns(person: Person) -> dict[str, object]:
    return {name: getattr(person, name) for name in Person.__struct_fields__}
