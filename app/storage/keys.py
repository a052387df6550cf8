"""Projects, keys and their secrets. Every function is one transaction's work."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Select, bindparam, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from app.storage import tables
from app.storage.changes import newest_change, note_change
from app.storage.clock import now
from app.storage.database import Connection, Database, insert_into

_KEYS, _SECRETS, _PROJECTS = tables.keys, tables.secrets, tables.projects
# Of more, all secrets are read.
_FEW_KEYS = 500


class StoredSecret(Struct, frozen=True):
    """What is known of a secret. Times are milliseconds since the epoch.

    Args:
        hint: Its beginning and end.
        valid_until: When it stops opening; None for never.
        last_used_at: To the minute; None if that isn't known.
    """

    hint: str
    created_at: int
    valid_until: int | None = None
    last_used_at: int | None = None


class StoredKey(Struct, frozen=True):
    """A key as the database has it. Times are milliseconds since the epoch.

    Args:
        id: `k_` and random characters; outlives its secrets.
        project: The project's name.
        scopes: What it may do.
        models: Patterns of the models that it may use; None for all.
        expires_at: When it stops opening; None for never.
        secrets: Those that still open, the newest first.
    """

    id: str
    name: str
    project: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    note: str
    created_at: int
    expires_at: int | None = None
    paused_at: int | None = None
    revoked_at: int | None = None
    secrets: tuple[StoredSecret, ...] = ()

    def state(self, now: int) -> str:
        """`active`, or why it doesn't open: `revoked`, `paused` or `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.paused_at is not None:
            return "paused"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class NameTaken(Exception):
    """The project has another key of this name."""


class Found(Struct, frozen=True):
    """What a digest leads to.

    Args:
        key: None for a digest that nobody knows.
        valid_until: When this secret stops opening, in milliseconds since the epoch; None for never.
        change: The number of the newest change that was seen together with it.
    """

    key: StoredKey | None
    valid_until: int | None
    change: int


def find_by_digest(connection: Connection, digest: str) -> Found:
    """Look a secret up by its SHA-256 in hex."""
    # Before the key: PostgreSQL shows each statement what has been committed by then, and the key must not be older.
    change = newest_change(connection)
    query = _select_keys(_SECRETS.c.valid_until).join(_SECRETS).where(_SECRETS.c.digest == digest)
    row = connection.execute(query).first()
    return Found(_key(row) if row else None, row.valid_until if row else None, change)


def find_key(connection: Connection, words: str, project: str | None = None) -> list[StoredKey]:
    """The keys that an id or a name means; by name, those that aren't revoked."""
    by_name = (_KEYS.c.name == words) & _KEYS.c.revoked_at.is_(None)
    query = _select_keys().where(or_(_KEYS.c.id == words, by_name))
    return _with_secrets(connection, query if project is None else query.where(_PROJECTS.c.name == project))


def key_of(connection: Connection, key_id: str) -> StoredKey | None:
    """The key of an id, revoked or not; None if there is none."""
    keys = _with_secrets(connection, _select_keys().where(_KEYS.c.id == key_id))
    return keys[0] if keys else None


class KeyFilter(Struct, frozen=True):
    """Which keys are looked for; None means any, but for revoked ones, which have to be asked for.

    Args:
        state: See `StoredKey.state`.
        words: A part of the name or of the note, in any case, or the id.
    """

    project: str | None = None
    state: str | None = None
    words: str | None = None


def page_of_keys(
    connection: Connection, wanted: KeyFilter, *, after: tuple[str, str, str] | None = None, limit: int
) -> list[StoredKey]:
    """Some keys by project, name and id, from after such a place on."""
    place = (_PROJECTS.c.name, _KEYS.c.name, _KEYS.c.id)
    query = _select_keys().where(*_state_is(wanted.state)).order_by(*place)
    if wanted.project is not None:
        query = query.where(_PROJECTS.c.name == wanted.project)
    if after is not None:
        query = query.where(tuple_(*place) > after)
    words = (wanted.words or "").lower()
    found = []
    with connection.execute(query if words else query.limit(limit)) as rows:
        for row in rows:
            # Not by the servers, which have ideas of their own about upper and lower case.
            if not words or words in f"{row.name}\n{row.note}".lower() or words == row.id.lower():
                found.append(_key(row))
                if len(found) == limit:
                    break
    return _complete(connection, found)


def count_of_keys(connection: Connection) -> dict[str, int]:
    """How many keys that aren't revoked each project has."""
    query = (
        select(_PROJECTS.c.name, func.count(_KEYS.c.id))
        .outerjoin(_KEYS, (_KEYS.c.project_id == _PROJECTS.c.id) & _KEYS.c.revoked_at.is_(None))
        .group_by(_PROJECTS.c.name)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def list_keys(connection: Connection, *, revoked: bool = False) -> list[StoredKey]:
    """All keys by project and name; revoked ones only if asked for."""
    query = _select_keys().order_by(_PROJECTS.c.name, _KEYS.c.name, _KEYS.c.created_at)
    return _with_secrets(connection, query if revoked else query.where(_KEYS.c.revoked_at.is_(None)))


def list_projects(connection: Connection) -> list[str]:
    """The names of all projects."""
    return list(connection.execute(select(_PROJECTS.c.name).order_by(_PROJECTS.c.name)).scalars())


def add_key(connection: Connection, key: StoredKey, *, project_id: str, digest: str) -> None:
    """Add a key with its only secret, and its project if there is none of that name.

    Args:
        project_id: The id of the project if it is new.
        digest: Of the secret.

    Raises:
        NameTaken: See there.
    """
    project_id = _project_of(connection, key.project, project_id)
    try:
        connection.execute(insert(_KEYS).values(project_id=project_id, **_columns(key)))
    except IntegrityError:
        raise NameTaken from None
    _add_secret(connection, key.id, digest, key.secrets[0])


def change_key(database: Database, connection: Connection, key: StoredKey, *, project_id: str) -> None:
    """Write a key's fields, and its project if there is none of that name, and tell all workers.

    Args:
        project_id: The id of the project if it is new.

    Raises:
        NameTaken: See there.
    """
    note_change(database, connection, key.id)
    project_id = _project_of(connection, key.project, project_id)
    try:
        connection.execute(update(_KEYS).where(_KEYS.c.id == key.id).values(project_id=project_id, **_columns(key)))
    except IntegrityError:
        raise NameTaken from None


def replace_secret(
    database: Database, connection: Connection, key_id: str, *, digest: str, secret: StoredSecret, old_until: int
) -> None:
    """Give a key a new secret, and tell all workers. Older ones open until `old_until` at most."""
    note_change(database, connection, key_id)
    stops_sooner = _SECRETS.c.valid_until.is_(None) | (_SECRETS.c.valid_until > old_until)
    connection.execute(update(_SECRETS).where(_SECRETS.c.key_id == key_id, stops_sooner).values(valid_until=old_until))
    _add_secret(connection, key_id, digest, secret)


def note_last_uses(database: Database, connection: Connection, *, digests: Sequence[str], at: int) -> None:
    """Note that secrets were used, unless another worker has noted that already."""
    # Else two workers, or one and whoever replaces a secret, could wait for each other's rows.
    database.hold_back_writers(connection)
    is_older = _SECRETS.c.last_used_at.is_(None) | (_SECRETS.c.last_used_at < at)
    query = update(_SECRETS).where(_SECRETS.c.digest == bindparam("used"), is_older).values(last_used_at=at)
    connection.execute(query, [{"used": digest} for digest in digests])


def _project_of(connection: Connection, name: str, new_id: str) -> str:
    """The id of the project of a name, which is made if there is none."""
    fresh = {"id": new_id, "name": name, "created_at": now()}
    # Others may be making the same.
    connection.execute(insert_into(_PROJECTS, connection.dialect.name).on_conflict_do_nothing(), fresh)
    found: str = connection.execute(select(_PROJECTS.c.id).where(_PROJECTS.c.name == name)).scalar_one()
    return found


def _add_secret(connection: Connection, key_id: str, digest: str, secret: StoredSecret) -> None:
    fields = msgspec.structs.asdict(secret)
    connection.execute(insert(_SECRETS).values(digest=digest, key_id=key_id, **fields))


def _select_keys(*further: Any) -> Select[Any]:
    return select(_KEYS, _PROJECTS.c.name.label("project"), *further).join(_PROJECTS)


def _with_secrets(connection: Connection, query: Select[Any]) -> list[StoredKey]:
    return _complete(connection, [_key(row) for row in connection.execute(query)])


def _complete(connection: Connection, found: list[StoredKey]) -> list[StoredKey]:
    """Keys with their secrets."""
    open_ones = or_(_SECRETS.c.valid_until.is_(None), _SECRETS.c.valid_until > now())
    columns = [_SECRETS.c[name] for name in ("key_id", *StoredSecret.__struct_fields__)]
    query = select(*columns).where(open_ones).order_by(_SECRETS.c.created_at.desc())
    if len(found) <= _FEW_KEYS:
        query = query.where(_SECRETS.c.key_id.in_([key.id for key in found]))
    secrets: dict[str, list[StoredSecret]] = {}
    for key_id, *fields in connection.execute(query):
        secrets.setdefault(key_id, []).append(StoredSecret(*fields))
    return [msgspec.structs.replace(key, secrets=tuple(secrets.get(key.id, ()))) for key in found]


def _state_is(state: str | None) -> list[ColumnElement[bool]]:
    """What `StoredKey.state` says, for the server."""
    is_expired = _KEYS.c.expires_at.is_not(None) & (_KEYS.c.expires_at <= now())
    if state == "revoked":
        return [_KEYS.c.revoked_at.is_not(None)]
    conditions: list[ColumnElement[bool]] = [_KEYS.c.revoked_at.is_(None)]
    match state:
        case "paused":
            conditions.append(_KEYS.c.paused_at.is_not(None))
        case "expired":
            conditions += [_KEYS.c.paused_at.is_(None), is_expired]
        case "active":
            conditions += [_KEYS.c.paused_at.is_(None), ~is_expired]
    return conditions


def _key(row: Row[Any]) -> StoredKey:
    return StoredKey(
        id=row.id,
        name=row.name,
        project=row.project,
        scopes=_strings(row.scopes),
        models=None if row.models is None else _strings(row.models),
        note=row.note,
        created_at=row.created_at,
        expires_at=row.expires_at,
        paused_at=row.paused_at,
        revoked_at=row.revoked_at,
    )


def _columns(key: StoredKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": _json(key.scopes),
        "models": None if key.models is None else _json(key.models),
        "note": key.note,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "paused_at": key.paused_at,
        "revoked_at": key.revoked_at,
    }


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()


def _strings(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
