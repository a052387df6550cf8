"""What an operator does with keys. Each function is one transaction's work, and works whether or not a server runs."""

import re
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from app.domain.caller import ENVIRONMENT, SCOPES
from app.keys.secret import digest_of, hint_of, make_id, make_secret
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.keys import NameTaken, StoredKey, StoredSecret, add_key, change_key, find_key, replace_secret
from app.storage.recordings import delete_recording

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_PATTERN = re.compile(r"[^\s,\x00-\x1f\x7f]{1,200}")
_LONGEST_NOTE = 1000
LONGEST_GRACE_DAYS = 366


class KeyFault(Exception):
    """What was asked for can't be done; says why, in words for whoever asked.

    Args:
        param: The field at fault.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class KeyIsRevoked(KeyFault):
    """A revoked key stays revoked: it can't be paused, resumed or given another secret.

    Args:
        key: The key.
    """

    def __init__(self, key: StoredKey) -> None:
        super().__init__(f"The key {key.name!r} is revoked; make a new one.")


class NewSecret(Struct, frozen=True):
    """A key, and its secret, which is never seen again."""

    key: StoredKey
    secret: str


def create_key(
    connection: Connection,
    *,
    name: str,
    project: str = "default",
    scopes: Sequence[str] = ("chat",),
    models: Sequence[str] | None = None,
    expires_at: int | None = None,
    note: str = "",
) -> NewSecret:
    """Make a key.

    Args:
        name: Unique among the project's keys that aren't revoked.
        project: Made if there is none of that name.
        scopes: What it may do.
        models: Patterns of the models that it may use; None for all.
        expires_at: When it stops opening, in milliseconds since the epoch; None for never.

    Raises:
        KeyFault: A value is wrong, or the name is taken.
    """
    secret, time = make_secret(), now()
    key = StoredKey(
        id=make_id("k_"),
        name=name,
        project=project,
        scopes=tuple(dict.fromkeys(scopes)),
        models=None if models is None else tuple(dict.fromkeys(models)),
        note=note,
        created_at=time,
        expires_at=expires_at,
        secrets=(StoredSecret(hint_of(secret), time),),
    )
    _check(key)
    if key.state(time) == "expired":
        raise KeyFault("A new key has to expire in the future.", "expires_at")
    try:
        add_key(connection, key, project_id=make_id("p_"), digest=digest_of(secret))
    except NameTaken:
        raise KeyFault(f"The project {project!r} has a key {name!r} already.", "name") from None
    return NewSecret(key, secret)


def update_key(database: Database, connection: Connection, key: StoredKey) -> StoredKey:
    """Write a key that was changed; counts on every worker within two seconds.

    Raises:
        KeyFault: A value is wrong, or the name is taken.
    """
    _check(key)
    try:
        change_key(database, connection, key, project_id=make_id("p_"))
    except NameTaken:
        raise KeyFault(f"The project {key.project!r} has another key {key.name!r} already.", "name") from None
    return key


def pause_key(database: Database, connection: Connection, key: StoredKey) -> StoredKey:
    """Let a key no longer open, until it is resumed.

    Raises:
        KeyIsRevoked: It never opens again anyway.
    """
    _check_not_revoked(key)
    return update_key(database, connection, replace(key, paused_at=key.paused_at or now()))


def resume_key(database: Database, connection: Connection, key: StoredKey) -> StoredKey:
    """Let a paused key open again.

    Raises:
        KeyIsRevoked: It never opens again.
    """
    _check_not_revoked(key)
    return update_key(database, connection, replace(key, paused_at=None))


def revoke_key(database: Database, connection: Connection, key: StoredKey) -> StoredKey:
    """Let a key never open again. Its history stays, but for recorded texts."""
    revoked = update_key(database, connection, replace(key, revoked_at=key.revoked_at or now()))
    delete_recording(database, connection, key.id)
    return revoked


def rotate_key(database: Database, connection: Connection, key: StoredKey, *, grace_seconds: float) -> NewSecret:
    """Give a key a new secret. The old one opens for `grace_seconds` more.

    Raises:
        KeyIsRevoked: It never opens again.
        KeyFault: The old one would open for too long.
    """
    _check_not_revoked(key)
    if grace_seconds > LONGEST_GRACE_DAYS * 86_400:
        raise KeyFault(f"The grace must not exceed {LONGEST_GRACE_DAYS}d.", "grace")
    secret, time = make_secret(), now()
    newest, until = StoredSecret(hint_of(secret), time), time + round(grace_seconds * 1000)
    replace_secret(
        database,
        connection,
        key.id,
        digest=digest_of(secret),
        secret=newest,
        old_until=until,
    )
    older = [replace(one, valid_until=min(one.valid_until or until, until)) for one in key.secrets]
    return NewSecret(replace(key, secrets=(newest, *older)), secret)


def only_key(connection: Connection, words: str, project: str | None = None) -> StoredKey:
    """The key that an id or a name means.

    Raises:
        KeyFault: There is none, or more than one.
    """
    found = find_key(connection, words, project)
    if not found:
        where = "" if project is None else f" in the project {project!r}"
        raise KeyFault(f"There is no key {words!r}{where}; a revoked one is found by its id.")
    if len(found) > 1:
        where = ", ".join(f"{key.id} in {key.project}" for key in found)
        raise KeyFault(f"Several keys have the name {words!r}: {where}. Name the project, or the id.")
    return found[0]


def _check_not_revoked(key: StoredKey) -> None:
    if key.revoked_at is not None:
        raise KeyIsRevoked(key)


def _check(key: StoredKey) -> None:
    for what, text in (("name", key.name), ("project", key.project)):
        if not _NAME.fullmatch(text) or text != text.strip():
            raise KeyFault(f"The {what} must have 1 to 100 characters, without line breaks or spaces around it.", what)
    if key.project == ENVIRONMENT:
        raise KeyFault(
            f"The project {ENVIRONMENT!r} stands for the keys of API_MASTER_KEY; take another name.", "project"
        )
    unknown = [scope for scope in key.scopes if scope not in SCOPES]
    if unknown or not key.scopes:
        raise KeyFault(f"The scopes are {', '.join(SCOPES)}; {', '.join(unknown) or 'none'} was given.", "scopes")
    for pattern in key.models or ():
        if not _PATTERN.fullmatch(pattern):
            raise KeyFault(f"{pattern[:50]!r} is not the name of a model, nor a pattern such as kimi*.", "models")
    if key.models == ():
        raise KeyFault("A key that may use no model is of no use; pause it instead.", "models")
    if len(key.note) > _LONGEST_NOTE:
        raise KeyFault(f"The note must not exceed {_LONGEST_NOTE} characters.", "note")
