"""Keys: made, changed, given another secret, paused, revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, Field

from app.api.admin.common import (
    Body,
    Cursor,
    IdempotencyKey,
    IfMatch,
    Limit,
    Page,
    Writer,
    change,
    check_version,
    differences,
    once,
    read,
    with_etag,
)
from app.api.admin.services import AdminServices
from app.domain.errors import InvalidRequest, NotFound
from app.domain.granting import Scope
from app.domain.limits import read_limits, texts_of
from app.keys import administration
from app.storage.audit import Actor, note_action
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import StoredKey, find_key, list_keys
from app.storage.limits import set_limits, stored_limits

KeyState = Literal["active", "paused", "expired", "revoked"]
Limits = Annotated[
    str | None, Field(description="such as `60 requests/minute, 5 at once`; `none` for no limits, null for the default")
]
Models = Annotated[list[str] | None, Field(description="patterns of models, such as `kimi*`; null for all")]


class Key(Body):
    """A key. Its secrets are known to their holder only; of each, the beginning and the end are shown."""

    id: str
    name: str
    project: str
    state: KeyState
    scopes: list[str]
    models: Models
    limits: Limits
    note: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    secrets: Annotated[list[str], Field(description="those that open now, the newest first")]


class NewKey(Body):
    """A key to be made."""

    name: str
    project: str = "default"
    scopes: list[str] = ["chat"]
    models: Models = None
    limits: Limits = None
    note: str = ""
    expires_at: AwareDatetime | None = None


class KeyPatch(Body):
    """What is to be changed of a key: absent fields stay, null clears."""

    name: str | None = None
    project: str | None = None
    scopes: list[str] | None = None
    models: Models = None
    limits: Limits = None
    note: str | None = None
    expires_at: AwareDatetime | None = None


class Rotation(Body):
    """How a key gets another secret."""

    grace_seconds: Annotated[float, Field(ge=0, le=366 * 86_400, description="for which the old one opens")] = 0


class KeyWithSecret(Body):
    """A key with its secret, which is shown this once. A request sent again is answered without it."""

    key: Key
    secret: str | None
    secret_shown: bool


def keys_router(services: AdminServices) -> APIRouter:
    """The routes of keys."""
    router = APIRouter(prefix="/keys", tags=["keys"])
    database = services.database

    @router.get("", summary="List keys")
    async def list_all(
        project: str | None = None,
        state: KeyState | None = None,
        q: Annotated[str | None, Query(max_length=100, description="a part of the name or the note, or an id")] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page[Key]:
        """By project and name; revoked ones only with `state=revoked`."""

        def page(connection: Connection) -> Page[Key]:
            keys = [
                key
                for key in _shown_all(connection, list_keys(connection, revoked=state == "revoked"))
                if _is_wanted(key, project, state, q) and (cursor is None or _place(key) > cursor)
            ]
            return Page(data=keys[:limit], next=_place(keys[limit - 1]) if len(keys) > limit else None)

        return await read(database, page)

    @router.post("", summary="Make a key", status_code=201)
    async def create(
        body: NewKey, actor: Writer, response: Response, idempotency_key: IdempotencyKey = None
    ) -> KeyWithSecret:
        """The secret is in this answer only."""

        def make(connection: Connection) -> KeyWithSecret:
            def made() -> tuple[KeyWithSecret, dict[str, object]]:
                limits = _checked_limits(body.limits)
                new = _without_fault(
                    administration.create_key,
                    connection,
                    name=body.name,
                    project=body.project,
                    scopes=body.scopes,
                    models=body.models,
                    expires_at=_milliseconds(body.expires_at),
                    note=body.note,
                )
                if limits is not None:
                    set_limits(database, connection, Scope("key", new.key.id), limits)
                key = _shown(connection, new.key)
                note_action(connection, actor, "key.create", f"key:{key.id}", after=key.model_dump(mode="json"))
                return KeyWithSecret(key=key, secret=new.secret, secret_shown=True), {"id": key.id}

            answer, kept = once(connection, actor, idempotency_key, body.model_dump(mode="json"), made)
            if isinstance(answer, KeyWithSecret):
                return answer
            key = _only(connection, msgspec.json.decode(kept)["id"])
            return KeyWithSecret(key=_shown(connection, key), secret=None, secret_shown=False)

        answer = await change(database, make)
        if not answer.secret_shown:
            response.status_code = 200
        return answer

    @router.get("/{key_id}", summary="Read a key")
    async def get(key_id: str, response: Response) -> Key:
        """With the `ETag` for a change."""
        return with_etag(
            response, await read(database, lambda connection: _shown(connection, _only(connection, key_id)))
        )

    @router.patch("/{key_id}", summary="Change a key")
    async def patch(key_id: str, body: KeyPatch, actor: Writer, response: Response, if_match: IfMatch = None) -> Key:
        """A merge patch; counts on every worker within two seconds."""

        def patched(connection: Connection) -> Key:
            stored = _only(connection, key_id)
            before = _shown(connection, stored)
            check_version(before, if_match)
            given = body.given()
            if "limits" in given:
                set_limits(database, connection, Scope("key", stored.id), _checked_limits(given.pop("limits")))
            changed = msgspec.structs.replace(stored, **_fields(given))
            _without_fault(administration.update_key, database, connection, changed)
            return _noted(connection, actor, "key.update", before, changed)

        return with_etag(response, await change(database, patched))

    @router.delete("/{key_id}", summary="Revoke a key")
    async def revoke(key_id: str, actor: Writer, if_match: IfMatch = None) -> Key:
        """It never opens again; its history stays."""
        return await _acted(key_id, actor, "key.revoke", administration.revoke_key, if_match)

    @router.post("/{key_id}/pause", summary="Pause a key")
    async def pause(key_id: str, actor: Writer) -> Key:
        """It doesn't open until it is resumed."""
        return await _acted(key_id, actor, "key.pause", administration.pause_key)

    @router.post("/{key_id}/resume", summary="Resume a key")
    async def resume(key_id: str, actor: Writer) -> Key:
        """It opens again."""
        return await _acted(key_id, actor, "key.resume", administration.resume_key)

    @router.post("/{key_id}/rotate", summary="Give a key another secret")
    async def rotate(key_id: str, body: Rotation, actor: Writer) -> KeyWithSecret:
        """Id, history, sessions and limits stay. The secret is in this answer only."""

        def rotated(connection: Connection) -> KeyWithSecret:
            stored = _only(connection, key_id)
            new = _without_fault(
                administration.rotate_key, database, connection, stored, grace_seconds=body.grace_seconds
            )
            note_action(
                connection, actor, "key.rotate", f"key:{stored.id}", after={"grace_seconds": body.grace_seconds}
            )
            return KeyWithSecret(key=_shown(connection, new.key), secret=new.secret, secret_shown=True)

        return await change(database, rotated)

    async def _acted(key_id: str, actor: Actor, action: str, act: Any, if_match: str | None = None) -> Key:
        def acted(connection: Connection) -> Key:
            stored = _only(connection, key_id)
            before = _shown(connection, stored)
            check_version(before, if_match)
            return _noted(connection, actor, action, before, _without_fault(act, database, connection, stored))

        return await change(database, acted)

    return router


def _only(connection: Connection, key_id: str) -> StoredKey:
    found = next((key for key in find_key(connection, key_id) if key.id == key_id), None)
    if found is None:
        raise NotFound(f"There is no key {key_id[:50]!r}.", param="key_id")
    return found


def _shown(connection: Connection, key: StoredKey) -> Key:
    return _with_limits(key, stored_limits(connection))


def _shown_all(connection: Connection, keys: list[StoredKey]) -> list[Key]:
    limits = stored_limits(connection)
    return sorted([_with_limits(key, limits) for key in keys], key=_place)


def _with_limits(key: StoredKey, limits: dict[Scope, str]) -> Key:
    return Key(
        id=key.id,
        name=key.name,
        project=key.project,
        state=key.state(now()),  # type: ignore[arg-type]  # one of these
        scopes=list(key.scopes),
        models=None if key.models is None else list(key.models),
        limits=limits.get(Scope("key", key.id)),
        note=key.note,
        created_at=time_at(key.created_at),
        expires_at=None if key.expires_at is None else time_at(key.expires_at),
        secrets=list(key.hints),
    )


def _noted(connection: Connection, actor: Actor, action: str, before: Key, changed: StoredKey) -> Key:
    after = _shown(connection, changed)
    old, new = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    if new:
        note_action(connection, actor, action, f"key:{after.id}", before=old, after=new)
    return after


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a patch as a stored key has them.

    Raises:
        InvalidRequest: One that can't be cleared is null.
    """
    for name in ("name", "project", "scopes"):
        if name in given and given[name] is None:
            raise InvalidRequest(f"{name} can't be null.", param=name)
    fields = dict(given)
    if "expires_at" in fields:
        fields["expires_at"] = _milliseconds(fields["expires_at"])
    if "note" in fields:
        fields["note"] = fields["note"] or ""
    for name in ("scopes", "models"):
        if fields.get(name) is not None:
            fields[name] = tuple(dict.fromkeys(fields[name]))
    return fields


def _checked_limits(text: str | None) -> str | None:
    """Limits as they are stored.

    Raises:
        InvalidRequest: They can't be read.
    """
    if text is None:
        return None
    try:
        return texts_of(read_limits(text))
    except ValueError as error:
        raise InvalidRequest(f"limits: {error}.", param="limits") from None


def _without_fault(work: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return work(*arguments, **options)
    except administration.KeyFault as fault:
        raise InvalidRequest(str(fault)) from None


def _is_wanted(key: Key, project: str | None, state: KeyState | None, q: str | None) -> bool:
    words = (q or "").lower()
    return (
        (project is None or key.project == project)
        and (state is None or key.state == state)
        and (not words or words in key.name.lower() or words in key.note.lower() or q == key.id)
    )


def _place(key: Key) -> str:
    """Where a key stands in the list, for the next page."""
    return f"{key.project}\n{key.name}\n{key.id}".encode().hex()


def time_at(milliseconds: int) -> datetime:
    """A time of the database, as the API has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
