"""What the audit log has of keys: never a secret."""

from datetime import UTC, datetime

from app.domain.granting import Scope
from app.keys.administration import NewSecret
from app.storage.audit import Actor, note_action, note_update
from app.storage.database import Connection
from app.storage.keys import StoredKey
from app.storage.limits import limits_of_scope


def key_facts(connection: Connection, key: StoredKey) -> dict[str, object]:
    """The fields of a key that somebody can change."""
    at = key.expires_at
    return {
        "name": key.name,
        "project": key.project,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "limits": limits_of_scope(connection, Scope("key", key.id)),
        "note": key.note,
        "expires_at": None if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds"),
        "is_paused": key.paused_at is not None,
        "is_revoked": key.revoked_at is not None,
    }


def note_created(connection: Connection, actor: Actor, key: StoredKey) -> None:
    """Write down that a key was made, after its limits were set."""
    note_action(connection, actor, "key.create", f"key:{key.id}", after=key_facts(connection, key))


def note_changed(connection: Connection, actor: Actor, action: str, before: dict[str, object], key: StoredKey) -> None:
    """Write down how a key has changed; nothing if it hasn't.

    Args:
        action: Such as `key.pause`.
        before: Its `key_facts`.
        key: As it is now.
    """
    note_update(connection, actor, action, f"key:{key.id}", before, key_facts(connection, key))


def note_rotated(connection: Connection, actor: Actor, new: NewSecret, *, grace_seconds: float) -> None:
    """Write down that a key has got another secret. Only the ends that are shown anyway say which."""
    after = {"secret": new.key.secrets[0].hint, "grace_seconds": grace_seconds}
    note_action(connection, actor, "key.rotate", f"key:{new.key.id}", after=after)
