"""Keys: made, changed, given another secret, paused, revoked."""

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Body,
    Cursor,
    Endpoint,
    IdempotencyKey,
    IfMatch,
    Limit,
    Page,
    Writer,
    change,
    check_version,
    cursor_of,
    once,
    place_of,
    read,
    router_of,
    time_at,
    with_etag,
)
from app.api.admin.services import AdminServices
from app.domain.durations import span
from app.domain.errors import InvalidRequest, NotFound, StateConflict
from app.domain.granting import Scope
from app.domain.limits import Limit as UsageLimit
from app.domain.limits import read_limits, texts_of
from app.keys import administration
from app.keys.expiry import expiry_at
from app.keys.history import key_facts, note_changed, note_created, note_rotated
from app.storage.audit import Actor
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import KeyFilter, StoredKey, key_of, page_of_keys
from app.storage.limits import limits_of_scope, set_limits, stored_limits

KeyState = Literal["active", "paused", "expired", "revoked"]
Limits = Annotated[
    str | None,
    Field(
        max_length=4000,
        description="Such as `60 requests/minute, 5 at once`; `none` for no limits, null for the default.",
    ),
]
Models = Annotated[
    list[str] | None, Field(max_length=200, description="Patterns of models, such as `kimi*`; null for all.")
]
Scopes = Annotated[list[str], Field(description="Of `chat`, `metrics`, `admin:read` and `admin`.")]
Expiry = Annotated[
    str | None,
    Field(
        max_length=40,
        description="A date such as `2027-01-31`, whose end in `TIME_ZONE` is meant, or a time with its offset such as "
        "`2027-01-31T12:00:00+01:00`; null for never.",
    ),
]


class Secret(BaseModel):
    """What is known of a secret."""

    hint: Annotated[str, Field(description="Its beginning and end.")]
    created_at: AwareDatetime
    valid_until: Annotated[AwareDatetime | None, Field(description="When it stops opening; null for never.")]
    last_used_at: Annotated[
        AwareDatetime | None, Field(description="To a minute or two; null if it has not been used since this is noted.")
    ]


class Key(BaseModel):
    """A key. Only its holder knows its secrets; of each, the beginning and the end are shown."""

    id: str
    name: str
    project: str
    state: KeyState
    scopes: Scopes
    models: Models
    limits: Limits
    note: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    secrets: Annotated[list[Secret], Field(description="Those that open now, the newest first.")]

    def version(self) -> "Key":
        """What its `ETag` stands for: a use is no change."""
        return self.model_copy(
            update={"secrets": [one.model_copy(update={"last_used_at": None}) for one in self.secrets]}
        )


class NewKey(Body):
    """A key to be made."""

    name: str
    project: str = "default"
    scopes: Scopes = Field(["chat"])
    models: Models = None
    limits: Limits = None
    note: str = ""
    expires_at: Expiry = None


class KeyPatch(Body):
    """What is to be changed of a key: absent fields stay, null clears."""

    # By factories: what stands for an absent field is nobody's default.
    name: str = Field(default_factory=str)
    project: str = Field(default_factory=str)
    scopes: Scopes = Field(default_factory=list)
    models: Models = None
    limits: Limits = None
    note: str | None = None
    expires_at: Expiry = None


class Rotation(Body):
    """How a key gets another secret."""

    grace: Annotated[
        str, Field(max_length=20, description="How long older secrets still open, such as `24h` or `7d`.")
    ] = "0s"


class KeyWithSecret(BaseModel):
    """A key with its secret, which is shown this once. A request sent again is answered without it."""

    key: Key
    secret: str | None
    secret_shown: bool


class KeyEndpoints:
    """`/keys`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._zone = services.zone

    def router(self) -> APIRouter:
        """The routes."""
        return router_of(
            "keys",
            Endpoint("GET", "/keys", self.list_all, "List keys"),
            Endpoint("POST", "/keys", self.create, "Make a key", status=201, errors=(409,)),
            Endpoint("GET", "/keys/{key_id}", self.get, "Read a key", errors=(404,)),
            Endpoint("PATCH", "/keys/{key_id}", self.patch, "Change a key", errors=(404, 412)),
            Endpoint("DELETE", "/keys/{key_id}", self.revoke, "Revoke a key", errors=(404, 412)),
            Endpoint("POST", "/keys/{key_id}/pause", self.pause, "Pause a key", errors=(404, 409, 412)),
            Endpoint("POST", "/keys/{key_id}/resume", self.resume, "Resume a key", errors=(404, 409, 412)),
            Endpoint("POST", "/keys/{key_id}/rotate", self.rotate, "Give a key another secret", errors=(404, 409, 412)),
        )

    async def list_all(
        self,
        project: str | None = None,
        state: KeyState | None = None,
        q: Annotated[
            str | None, Query(max_length=100, description="A part of the name or the note, or the id.")
        ] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page[Key]:
        """By project and name. Revoked ones only with `state=revoked`."""
        after = place_of(cursor, str, str, str)

        def page(connection: Connection) -> Page[Key]:
            keys = page_of_keys(connection, KeyFilter(project, state, q), after=after, limit=limit + 1)
            last = keys[limit - 1] if len(keys) > limit else None
            limits = stored_limits(connection)
            return Page(
                data=[_with_limits(key, limits.get(Scope("key", key.id))) for key in keys[:limit]],
                next=None if last is None else cursor_of(last.project, last.name, last.id),
            )

        return await read(self._database, page)

    async def create(
        self, body: NewKey, actor: Writer, response: Response, idempotency_key: IdempotencyKey = None
    ) -> KeyWithSecret:
        """The secret is in this answer only: a request that is sent again gets a 200 without it."""

        def make(connection: Connection) -> KeyWithSecret:
            request = ["key.create", body.model_dump(mode="json")]
            made, known = once(
                connection,
                actor,
                idempotency_key,
                request,
                lambda: self._created(connection, actor, body),
            )
            return made or _without_secret(connection, known["id"])

        answer = await change(self._database, make)
        if not answer.secret_shown:
            response.status_code = 200
        return with_etag(response, answer, answer.key.version())

    async def get(self, key_id: str, response: Response) -> Key:
        """With its version as `ETag`."""
        key = await read(self._database, lambda connection: _shown(connection, _only(connection, key_id)))
        return with_etag(response, key, key.version())

    async def patch(
        self, key_id: str, body: KeyPatch, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> Key:
        """A merge patch. It counts on every worker within two seconds."""

        def patched(connection: Connection, key: StoredKey) -> StoredKey:
            given = body.given()
            if "limits" in given:
                self._set_limits(connection, key.id, given.pop("limits"))
            changed = msgspec.structs.replace(key, **_fields(given, self._zone))
            return administration.update_key(self._database, connection, changed)

        return await self._changed(key_id, actor, "key.update", patched, if_match, response)

    async def revoke(self, key_id: str, actor: Writer, response: Response, if_match: IfMatch = None) -> Key:
        """It never opens again. Its history stays."""
        return await self._changed(
            key_id, actor, "key.revoke", self._with(administration.revoke_key), if_match, response
        )

    async def pause(self, key_id: str, actor: Writer, response: Response, if_match: IfMatch = None) -> Key:
        """It doesn't open until it is resumed."""
        return await self._changed(key_id, actor, "key.pause", self._with(administration.pause_key), if_match, response)

    async def resume(self, key_id: str, actor: Writer, response: Response, if_match: IfMatch = None) -> Key:
        """It opens again."""
        return await self._changed(
            key_id, actor, "key.resume", self._with(administration.resume_key), if_match, response
        )

    async def rotate(
        self,
        key_id: str,
        actor: Writer,
        response: Response,
        body: Rotation | None = None,
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> KeyWithSecret:
        """Its id, history, sessions and limits stay. The secret is in this answer only."""
        body = body or Rotation()
        grace = _grace(body.grace)

        def rotated(connection: Connection) -> KeyWithSecret:
            def do() -> tuple[KeyWithSecret, dict[str, object]]:
                key = _only(connection, key_id)
                check_version(_shown(connection, key).version(), if_match)
                new = _refusing_faults(
                    lambda: administration.rotate_key(self._database, connection, key, grace_seconds=grace)
                )
                note_rotated(connection, actor, new, grace_seconds=grace)
                key = _only(connection, key_id)  # with the secrets that open now
                return KeyWithSecret(key=_shown(connection, key), secret=new.secret, secret_shown=True), {}

            request = ["key.rotate", key_id, body.model_dump(mode="json")]
            made, _ = once(connection, actor, idempotency_key, request, do)
            return made or _without_secret(connection, key_id)

        answer = await change(self._database, rotated)
        return with_etag(response, answer, answer.key.version())

    def _created(self, connection: Connection, actor: Actor, body: NewKey) -> tuple[KeyWithSecret, dict[str, object]]:
        new = _refusing_faults(
            lambda: administration.create_key(
                connection,
                name=body.name,
                project=body.project,
                scopes=body.scopes,
                models=body.models,
                expires_at=None if body.expires_at is None else _expiry(body.expires_at, self._zone),
                note=body.note,
            )
        )
        self._set_limits(connection, new.key.id, body.limits)
        note_created(connection, actor, new.key)
        key = _shown(connection, new.key)
        return KeyWithSecret(key=key, secret=new.secret, secret_shown=True), {"id": key.id}

    async def _changed(
        self,
        key_id: str,
        actor: Actor,
        action: str,
        work: Callable[[Connection, StoredKey], StoredKey],
        if_match: str | None,
        response: Response,
    ) -> Key:
        def changed(connection: Connection) -> Key:
            key = _only(connection, key_id)
            check_version(_shown(connection, key).version(), if_match)
            before = key_facts(connection, key)
            after = _refusing_faults(lambda: work(connection, key))
            note_changed(connection, actor, action, before, after)
            return _shown(connection, after)

        key = await change(self._database, changed)
        return with_etag(response, key, key.version())

    def _with(self, work: Callable[..., StoredKey]) -> Callable[[Connection, StoredKey], StoredKey]:
        return lambda connection, key: work(self._database, connection, key)

    def _set_limits(self, connection: Connection, key_id: str, text: str | None) -> None:
        scope, limits = Scope("key", key_id), None if text is None else texts_of(limits_in(text))
        if limits != limits_of_scope(connection, scope):
            set_limits(self._database, connection, scope, limits)


def limits_in(text: str) -> tuple[UsageLimit, ...]:
    """The limits in a field.

    Raises:
        InvalidRequest: They can't be read.
    """
    if not text.strip():
        raise InvalidRequest("limits: nothing was given; `none` is for no limits.", param="limits")
    try:
        return read_limits(text)
    except ValueError as error:
        raise InvalidRequest(f"limits: {error}.", param="limits") from None


def _only(connection: Connection, key_id: str) -> StoredKey:
    found = key_of(connection, key_id)
    if found is None:
        raise NotFound(f"There is no key {key_id[:50]!r}.", param="key_id")
    return found


def _shown(connection: Connection, key: StoredKey) -> Key:
    return _with_limits(key, limits_of_scope(connection, Scope("key", key.id)))


def _with_limits(key: StoredKey, limits: str | None) -> Key:
    return Key(
        id=key.id,
        name=key.name,
        project=key.project,
        state=key.state(now()),
        scopes=list(key.scopes),
        models=None if key.models is None else list(key.models),
        limits=limits,
        note=key.note,
        created_at=time_at(key.created_at),
        expires_at=_time(key.expires_at),
        secrets=[
            Secret(
                hint=one.hint,
                created_at=time_at(one.created_at),
                valid_until=_time(one.valid_until),
                last_used_at=_time(one.last_used_at),
            )
            for one in key.secrets
        ],
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else time_at(milliseconds)


def _without_secret(connection: Connection, key_id: str) -> KeyWithSecret:
    return KeyWithSecret(key=_shown(connection, _only(connection, key_id)), secret=None, secret_shown=False)


def _fields(given: dict[str, Any], zone: tzinfo) -> dict[str, Any]:
    """The fields of a patch, as a stored key has them."""
    fields = dict(given)
    if fields.get("expires_at") is not None:
        fields["expires_at"] = _expiry(fields["expires_at"], zone)
    if "note" in fields:
        fields["note"] = fields["note"] or ""
    for name in ("scopes", "models"):
        if fields.get(name) is not None:
            fields[name] = tuple(dict.fromkeys(fields[name]))
    return fields


def _expiry(text: str, zone: tzinfo) -> int:
    try:
        return expiry_at(text, zone)
    except ValueError as error:
        raise InvalidRequest(f"expires_at: {error}", param="expires_at") from None


def _grace(text: str) -> float:
    try:
        seconds = span(text)
    except ValueError as error:
        raise InvalidRequest(f"grace: {error}.", param="grace") from None
    if seconds > administration.LONGEST_GRACE_DAYS * 86_400:
        raise InvalidRequest(f"grace must not exceed {administration.LONGEST_GRACE_DAYS}d.", param="grace")
    return seconds


def _refusing_faults(work: Callable[[], Any]) -> Any:
    """Do something, and say in the API's words what was wrong with it."""
    try:
        return work()
    except administration.KeyIsRevoked as fault:
        raise StateConflict(str(fault)) from None
    except administration.KeyFault as fault:
        raise InvalidRequest(str(fault), param=fault.param) from None
