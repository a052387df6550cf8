"""What the routes of the admin API have in common: who asks, pages, versions, merge patches, requests sent again."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from app.api.request import RequestContext
from app.domain.errors import InvalidRequest, KeyStoreUnavailable, MissingScope, PreconditionFailed, RepeatedDifferently
from app.storage.audit import Actor, Repeated, find_repeated, keep_repeated
from app.storage.database import Connection, Database, DatabaseAway

T = TypeVar("T")
MOST_IN_PAGE = 200
_RETRY_SECONDS = 2.0

Limit = Annotated[int, Query(ge=1, le=MOST_IN_PAGE, description="the most entries of the page")]
Cursor = Annotated[str | None, Query(description="`next` of the page before")]
IfMatch = Annotated[str | None, Header(description="the `ETag` of what is to be changed")]
IdempotencyKey = Annotated[str | None, Header(max_length=200, description="the same on a repetition of the request")]


class Body(BaseModel):
    """A request's body: a field that nobody knows is refused, rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, Any]:
        """The fields that the request has, null or not: of a merge patch, what is absent stays."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    data: list[T]
    next: str | None


def actor_of(request: Request) -> Actor:
    """Who asks, for the audit log."""
    context: RequestContext = request.scope["context"]
    client = request.scope.get("client")
    return Actor(f"key:{context.caller.id}", "api", client[0] if client else None)


def writer_of(request: Request) -> Actor:
    """Who asks for a change.

    Raises:
        MissingScope: The key may only look.
    """
    context: RequestContext = request.scope["context"]
    if "admin" not in context.caller.scopes:
        raise MissingScope("This API key may not change anything: it lacks the scope 'admin'.")
    return actor_of(request)


Writer = Annotated[Actor, Depends(writer_of)]


async def read(database: Database, work: Callable[[Connection], T]) -> T:
    """Read from the database, on the connection for reports.

    Raises:
        KeyStoreUnavailable: The database is away.
    """
    return await _done(database.report(work))


async def change(database: Database, work: Callable[[Connection], T]) -> T:
    """Change something in the database.

    Raises:
        KeyStoreUnavailable: The database is away.
    """
    return await _done(database.run(work))


async def _done(result: Any) -> Any:
    try:
        return await result
    except DatabaseAway:
        raise KeyStoreUnavailable(
            "The database can't be reached at the moment; try again soon.", retry_after=_RETRY_SECONDS
        ) from None


def cursor_of(number: int | None) -> str | None:
    """A place in a list, as clients get it."""
    return None if number is None else base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> int | None:
    """The opposite of `cursor_of`.

    Raises:
        InvalidRequest: It is none of ours.
    """
    if cursor is None:
        return None
    try:
        return int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        raise InvalidRequest("cursor must be the `next` of a page of the same list.", param="cursor") from None


def etag_of(shown: BaseModel) -> str:
    """The version of something, from what is shown of it."""
    return '"' + hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:16] + '"'


def check_version(shown: BaseModel, if_match: str | None) -> None:
    """Refuse a change of something that somebody else has changed in the meantime.

    Raises:
        PreconditionFailed: It has another version than the one that the client knows.
    """
    if (
        if_match is not None
        and if_match != "*"
        and etag_of(shown) not in [part.strip() for part in if_match.split(",")]
    ):
        raise PreconditionFailed(
            "This was changed by somebody else in the meantime. Read it again before you change it."
        )


def with_etag(response: Response, shown: T) -> T:
    """Tell the version of what is answered."""
    if isinstance(shown, BaseModel):
        response.headers["etag"] = etag_of(shown)
    return shown


def once(
    connection: Connection,
    actor: Actor,
    key: str | None,
    request: object,
    make: Callable[[], tuple[BaseModel, Mapping[str, object]]],
) -> tuple[BaseModel | None, str]:
    """Do something at most once for an Idempotency-Key.

    Args:
        request: What is asked for: another request with the same key is refused.
        make: Does it; returns what is answered now, and what is to be told in its place when it is asked for again.

    Returns:
        What `make` has made; or None, and what was kept of the first answer, as JSON.

    Raises:
        RepeatedDifferently: The key came with another request before.
    """
    if key is None:
        return make()[0], ""
    digest = hashlib.sha256(f"{actor.name}\n{key}".encode()).hexdigest()
    fingerprint = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
    known = find_repeated(connection, digest)
    if known is not None:
        if known.fingerprint != fingerprint:
            raise RepeatedDifferently("This Idempotency-Key was used for another request within the last day.")
        return None, known.answer
    made, kept = make()
    keep_repeated(connection, digest, Repeated(fingerprint, msgspec.json.encode(kept).decode()))
    return made, ""


def differences(
    before: Mapping[str, object], after: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """The fields that differ, as they were and as they are."""
    names: Sequence[str] = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}
