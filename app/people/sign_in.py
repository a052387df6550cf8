"""Signing in: by a link that opens once, by a password, or by a key.

Each function that takes a connection is one transaction's work. Passwords are hashed and compared outside of them.
"""

import hashlib
import hmac
import secrets
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from app.keys.secret import make_id
from app.storage.audit import Actor, note_action
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import key_of
from app.storage.people import (
    SIGN_IN,
    Login,
    Person,
    add_login,
    add_person,
    add_ticket,
    end_login,
    find_login,
    find_person,
    list_people,
    logins_of,
    take_ticket,
    touch_login,
)

Role = Literal["admin", "viewer", "holder"]

TICKET_MINUTES = 15
_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_IDLE, _LONGEST = 12 * _HOUR, 30 * _DAY
# A login that was noted as used is not noted again for so long.
_NOTED = 5 * _MINUTE
_FIRST_PERSON = "operator"
_SECRET_BYTES = 32
_LONGEST_AGENT = 200
_SHORTEST_PASSWORD, _LONGEST_PASSWORD = 12, 200
# 16 MB and some 50 ms.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024}
# What the password of nobody is compared with, so that it takes as long as any other.
_NOBODY = f"scrypt${'00' * 16}${'00' * 64}"


class SignInFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked."""


class Origin(Struct, frozen=True):
    """Where somebody signs in from.

    Args:
        agent: The browser, as it calls itself.
        address: Its network address.
    """

    agent: str
    address: str | None = None


class NewLogin(Struct, frozen=True):
    """A login, and the cookie that stands for it."""

    login: Login
    cookie: str


class Visitor(Struct, frozen=True):
    """Who uses the console.

    Args:
        name: Of the person, or of the key.
        key_id: Of a key's holder, who sees nothing else; None for people.
    """

    name: str
    role: Role
    login: Login
    key_id: str | None = None

    @property
    def actor(self) -> str:
        """The name in the log of changes."""
        return f"person:{self.id}" if self.key_id is None else f"key:{self.key_id}"

    @property
    def id(self) -> str:
        """Of the person, or of the key."""
        return self.key_id or self.login.person_id or ""


def make_link_ticket(connection: Connection, person: Person | None = None) -> str:
    """A ticket for one login within a quarter of an hour.

    Args:
        person: Whose; None for the first administrator, who is made if there is none.
    """
    if person is None:
        person = next((one for one in list_people(connection) if one.role == "admin" and one.disabled_at is None), None)
    if person is None:
        person = Person(make_id("p_"), _FIRST_PERSON, "admin", None, now(), None)
        if find_person(connection, name=person.name) is not None:
            person = replace(person, name=f"{_FIRST_PERSON} {person.id}")
        add_person(connection, person)
    ticket = secrets.token_urlsafe(_SECRET_BYTES)
    add_ticket(connection, _digest(ticket), person.id, now() + TICKET_MINUTES * _MINUTE)
    return ticket


def sign_in_with_ticket(connection: Connection, ticket: str, origin: Origin) -> NewLogin:
    """Sign in by a link.

    Raises:
        SignInFault: It was used, has expired, or was never given.
    """
    person = take_ticket(connection, _digest(ticket))
    if person is None:
        raise SignInFault(
            "This link has been used, or has expired. Make another one with the command console-link below."
        )
    return _signed_in(connection, origin, person_id=person.id)


def is_password_of(person: Person | None, password: str) -> bool:
    """Whether somebody may sign in with this password. It takes some 50 ms, as long for nobody as for a person."""
    known = None if person is None or person.disabled_at is not None else person.password
    return _is_password(password, known or _NOBODY) and known is not None


def sign_in_checked(connection: Connection, person: Person, origin: Origin) -> NewLogin | None:
    """Sign in a person whose password was right; None if the person has changed since."""
    if find_person(connection, person_id=person.id) != person:
        return None
    return _signed_in(connection, origin, person_id=person.id)


def sign_in_with_key(connection: Connection, key_id: str, origin: Origin) -> NewLogin:
    """Sign in the holder of a key that opens."""
    return _signed_in(connection, origin, key_id=key_id)


def login_of(connection: Connection, cookie: str) -> tuple[Login, Person | None] | None:
    """Who a cookie stands for; None if it counts no more. A person, or nobody for a key's holder."""
    login = find_login(connection, _digest(cookie), idle_since=now() - _IDLE)
    if login is None:
        return None
    if login.seen_at < now() - _NOTED:
        touch_login(connection, login.digest)
    if login.person_id is None:
        return login, None
    person = find_person(connection, person_id=login.person_id)
    return None if person is None or person.disabled_at is not None else (login, person)


def known_visitor(connection: Connection, cookie: str) -> Visitor | None:
    """Who a cookie stands for; None if it counts no more."""
    found = login_of(connection, cookie)
    if found is None:
        return None
    login, person = found
    if person is not None:
        return Visitor(person.name, "admin" if person.role == "admin" else "viewer", login)
    key = key_of(connection, login.key_id or "")
    if key is None or key.state(now()) != "active":
        return None
    return Visitor(key.name, "holder", login, key.id)


def sign_out(connection: Connection, login: Login) -> None:
    """End a login."""
    end_login(connection, login.digest)


def where_signed_in(connection: Connection, *, person_id: str | None = None, key_id: str | None = None) -> list[Login]:
    """The logins of a person, or of a key's holder, that count; the newest first."""
    return logins_of(connection, person_id=person_id, key_id=key_id, idle_since=now() - _IDLE)


def end_others(connection: Connection, login: Login, digest: str | None = None) -> int:
    """Sign the same person, or holder of the same key, out elsewhere.

    Args:
        login: The login that stays.
        digest: Of the only one to be ended; None for all but that one.

    Returns:
        How many were ended.
    """
    logins = logins_of(connection, person_id=login.person_id, key_id=login.key_id)
    others = [one.digest for one in logins if one.digest != login.digest and digest in (None, one.digest)]
    for other in others:
        end_login(connection, other)
    return len(others)


def hashed_password(password: str) -> str:
    """A password as it is kept. It takes some 50 ms.

    Raises:
        SignInFault: It is too short, or too long.
    """
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise SignInFault(f"A password must have {_SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters.")
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def _signed_in(
    connection: Connection, origin: Origin, *, person_id: str | None = None, key_id: str | None = None
) -> NewLogin:
    cookie = secrets.token_urlsafe(_SECRET_BYTES)
    time = now()
    login = Login(
        digest=_digest(cookie),
        person_id=person_id,
        key_id=key_id,
        csrf=secrets.token_urlsafe(_SECRET_BYTES),
        created_at=time,
        seen_at=time,
        expires_at=time + _LONGEST,
        agent=origin.agent[:_LONGEST_AGENT],
    )
    add_login(connection, login)
    if person_id is not None:
        note_action(connection, Actor(f"person:{person_id}", "console", origin.address), SIGN_IN, f"person:{person_id}")
    return NewLogin(login, cookie)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _is_password(password: str, hashed: str) -> bool:
    _, salt, known = hashed.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), known)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace")[: 4 * _LONGEST_PASSWORD], salt=salt, **_SCRYPT)
