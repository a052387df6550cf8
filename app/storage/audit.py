"""Who has changed what, and the answers to requests that may be sent again."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select

from app.storage import tables
from app.storage.clock import now

_AUDIT, _REPEATED = tables.audit, tables.repeated
_KEPT_MILLISECONDS = 86_400_000


class Actor(Struct, frozen=True):
    """Who changes something.

    Args:
        name: `key:k_…`, `person:p_…`, or the system's user.
        via: `api`, `console` or `cli`.
        address: The network address that it came from; None where there is none.
    """

    name: str
    via: str
    address: str | None = None


def note_action(
    connection: Connection,
    actor: Actor,
    action: str,
    subject: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Write down a change, in the transaction that makes it.

    Args:
        action: Such as `key.create`.
        subject: What was changed, such as `key:k_…`.
        before, after: The fields that differ, without secrets; None if there was, or is, nothing.
    """
    connection.execute(
        insert(_AUDIT).values(
            at=now(),
            actor=actor.name,
            via=actor.via,
            action=action,
            subject=subject,
            before=_json(before),
            after=_json(after),
            address=actor.address,
        )
    )


def note_update(
    connection: Connection,
    actor: Actor,
    action: str,
    subject: str,
    before: Mapping[str, object],
    after: Mapping[str, object],
) -> None:
    """Write down how something has changed; nothing if it hasn't.

    Args:
        before, after: All its fields. Those that differ are kept.
    """
    names = [name for name in after if before.get(name) != after[name]]
    if names:
        note_action(
            connection,
            actor,
            action,
            subject,
            before={name: before.get(name) for name in names},
            after={name: after[name] for name in names},
        )


def actions_before(
    connection: Connection,
    before: int | None,
    *,
    subject: str | None = None,
    actions: Collection[str] = (),
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A page of the audit log, the newest first, before a number; of one subject, and of some actions, if asked for."""
    query = select(_AUDIT).order_by(_AUDIT.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(_AUDIT.c.number < before)
    if subject is not None:
        query = query.where(_AUDIT.c.subject == subject)
    if actions:
        query = query.where(_AUDIT.c.action.in_(actions))
    return [
        {**row, "before": _object(row["before"]), "after": _object(row["after"])}
        for row in connection.execute(query).mappings()
    ]


class Repeated(Struct, frozen=True):
    """The answer to a request with an Idempotency-Key.

    Args:
        fingerprint: Of the request.
        answer: JSON, without secrets.
    """

    fingerprint: str
    answer: str


def find_repeated(connection: Connection, key: str) -> Repeated | None:
    """The answer that was given under a key within the last day."""
    row = connection.execute(select(_REPEATED).where(_REPEATED.c.key == key, _REPEATED.c.expires_at > now())).first()
    return None if row is None else Repeated(row.fingerprint, row.answer)


def keep_repeated(connection: Connection, key: str, repeated: Repeated) -> None:
    """Keep an answer for a day."""
    connection.execute(delete(_REPEATED).where((_REPEATED.c.expires_at <= now()) | (_REPEATED.c.key == key)))
    connection.execute(
        insert(_REPEATED).values(
            key=key,
            fingerprint=repeated.fingerprint,
            answer=repeated.answer,
            expires_at=now() + _KEPT_MILLISECONDS,
        )
    )


def _json(fields: Mapping[str, object] | None) -> str | None:
    return None if fields is None else msgspec.json.encode(fields).decode()


def _object(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
