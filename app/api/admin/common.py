"""What the endpoints of the admin API have in common: who asks, pages, versions, merge patches, repeated requests."""

import base64
import hashlib
import json
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from msgspec import Struct
from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator
from starlette.types import Send

from app.api.logins import visitor_of
from app.api.middleware.auth import missing_scope
from app.api.openapi import openai_responses
from app.api.request import RequestContext
from app.api.wire.faults import unknown_parameter
from app.domain.durations import FIRST_YEAR, LAST_YEAR
from app.domain.errors import InvalidRequest, KeyStoreUnavailable, PreconditionFailed, RepeatedDifferently
from app.storage.audit import Actor, Repeated, find_repeated, keep_repeated
from app.storage.database import Connection, Database, DatabaseAway

T = TypeVar("T")
PREFIX = "/admin/v1"
MOST_IN_PAGE = 200
# What both servers can hold in a column of numbers.
_LARGEST_NUMBER = (1 << 63) - 1
_RETRY_SECONDS = 2.0

Limit = Annotated[int, Query(ge=1, le=MOST_IN_PAGE, description="The most entries of the page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the page before.")]
IfMatch = Annotated[
    str | None, Header(description="The `ETag` of what is to be changed; a 412 if somebody else has changed it since.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="Any text, the same when the request is sent again within a day: it is then done only once.",
    ),
]
Since = Annotated[AwareDatetime | None, Query(description="From then on.")]
Until = Annotated[AwareDatetime | None, Query(description="Before then.")]

_ERRORS = {
    400: "The request is wrong; `param` says where",
    403: "`missing_scope`: the key lacks the scope `admin`, or to look `admin:read`; "
    "`csrf_failed`: another site may have sent this by the console's cookie",
    404: "`not_found`",
    409: "`idempotency_key_reused`: the `Idempotency-Key` came with another request before; "
    "or `state_conflict`: the key is revoked",
    412: "`precondition_failed`: somebody else has changed it since the version in `If-Match`",
    503: "`key_store_unavailable`: the database can't be reached at the moment",
}
_ALWAYS = (400, 403, 503)
_JSON = "application/json"


class Endpoint(Struct, frozen=True):
    """An endpoint, as it is registered.

    Args:
        handler: Its docstring describes it. If its answer isn't JSON, it makes a `Stream`.
        status: Of an answer without errors.
        errors: Statuses of errors that not every endpoint has.
        media_type: Of its answer.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    summary: str
    status: int = 200
    errors: tuple[int, ...] = ()
    media_type: str = _JSON


class KnownParameters:
    """Refuses query parameters that an endpoint doesn't have, and what no database can look for.

    The API's description would say the same, but it takes as long to write as all routes do.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], frozenset[str]] = {}

    def learn(self, route: APIRoute) -> None:
        """Look at the parameters of a route."""
        for method in route.methods or ():
            self._names[method, route.path_format] = frozenset(_query_names(route.dependant))

    async def __call__(self, request: Request) -> None:
        """Look at a request.

        Raises:
            InvalidRequest: There is one.
        """
        method = request.method.replace("HEAD", "GET")
        known = self._names.get((method, request.scope["route"].path_format), frozenset())
        for name in request.query_params:
            if name not in known:
                raise unknown_parameter(name)
        for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
            if "\0" in value:
                raise InvalidRequest(f"{name} must not have the character NUL in it.", param=name)


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for one in dependant.dependencies:
        yield from _query_names(one)


def router_of(tag: str, *endpoints: Endpoint) -> APIRouter:
    """A router with some endpoints."""
    parameters = KnownParameters()
    router = APIRouter(prefix=PREFIX, tags=[tag], dependencies=[Depends(parameters)])
    for endpoint in endpoints:
        responses = openai_responses({status: _ERRORS[status] for status in sorted({*_ALWAYS, *endpoint.errors})})
        is_stream = endpoint.media_type != _JSON
        if is_stream:
            responses[200] = {"content": {endpoint.media_type: {}}}
            head = _head_of(endpoint.media_type)
            router.add_api_route(endpoint.path, head, methods=["HEAD"], include_in_schema=False)
        router.add_api_route(
            endpoint.path,
            endpoint.handler,
            methods=[endpoint.method],
            summary=endpoint.summary,
            status_code=endpoint.status,
            responses=responses,
            response_class=StreamingResponse if is_stream else JSONResponse,
        )
        parameters.learn(cast("APIRoute", router.routes[-1]))
    return router


def _head_of(media_type: str) -> Callable[[], Awaitable[Response]]:
    """An endpoint with the headers only of one whose answer goes on for long."""

    async def head() -> Response:
        return Response(media_type=media_type)

    return head


class Stream(StreamingResponse):
    """An answer in pieces, whose source is closed as soon as the client has left.

    Args:
        pieces: An asynchronous generator.
    """

    def __init__(self, pieces: AsyncIterable[bytes], media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(pieces, media_type=media_type, headers={"cache-control": "no-store", **headers})

    async def stream_response(self, send: Send) -> None:
        """Send all pieces."""
        async with aclosing(cast("Any", self.body_iterator)):
            await super().stream_response(send)


class Body(BaseModel):
    """A request's body. A field that nobody knows is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: object) -> object:
        texts = value if isinstance(value, list) else [value]
        if not all(_is_storable(text) for text in texts if isinstance(text, str)):
            raise ValueError("it has characters that can't be stored")
        return value

    def given(self) -> dict[str, Any]:
        """The fields that the request has, null or not: in a merge patch, those that are absent stay."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    data: list[T]
    next: str | None = None


def actor_of(request: Request) -> Actor:
    """Who asks, for the audit log."""
    context: RequestContext = request.scope["context"]
    visitor = visitor_of(request)
    name = f"key:{context.caller.id}" if visitor is None else visitor.actor
    return Actor(name, "api", request.client.host if request.client else None)


def writer_of(request: Request) -> Actor:
    """Who asks for a change.

    Raises:
        MissingScope: The key or login may only look.
    """
    context: RequestContext = request.scope["context"]
    if "admin" not in context.caller.scopes:
        raise missing_scope(request.scope, "admin", "change anything")
    return actor_of(request)


Writer = Annotated[Actor, Depends(writer_of)]


async def read(database: Database, work: Callable[[Connection], T]) -> T:
    """Read from the database, on the connection for reports.

    Raises:
        KeyStoreUnavailable: The database is away.
    """
    return await _done(database.report(work))


async def change(database: Database, work: Callable[[Connection], T]) -> T:
    """Change something in the database, as `Database.change` does.

    Raises:
        KeyStoreUnavailable: The database is away.
    """
    return await _done(database.change(work))


async def _done(work: Awaitable[T]) -> T:
    try:
        return await work
    except DatabaseAway:
        raise KeyStoreUnavailable(
            "The database can't be reached at the moment; try again soon.", retry_after=_RETRY_SECONDS
        ) from None


def cursor_of(*place: str | int) -> str:
    """A place in a list, as clients get it."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The opposite of `cursor_of`; None before the first page.

    Args:
        kinds: What the list's places consist of.

    Raises:
        InvalidRequest: It is none of this list's.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        place = None
    if (
        not isinstance(place, list)
        or list(map(type, place)) != list(kinds)
        or any(abs(part) > _LARGEST_NUMBER if isinstance(part, int) else not _is_storable(part) for part in place)
    ):
        raise InvalidRequest("cursor must be the `next` of a page of the same list.", param="cursor")
    return tuple(place)


def sliced(
    entries: Sequence[T], place: Callable[[T], tuple[str | int, ...]], cursor: str | None, limit: int, *kinds: type
) -> Page[T]:
    """A page of a list that is at hand as a whole.

    Args:
        place: Where an entry stands, which says the order.
        kinds: What places consist of.
    """
    after = place_of(cursor, *kinds)
    rest = sorted([entry for entry in entries if after is None or place(entry) > after], key=place)
    following = cursor_of(*place(rest[limit - 1])) if len(rest) > limit else None
    return Page(data=rest[:limit], next=following)


def is_row_id(text: str) -> bool:
    """Whether a text is a number that the ledger may have given."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST_NUMBER


def time_at(milliseconds: int) -> datetime:
    """A time of the database, as the API has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def milliseconds_of(at: datetime, param: str) -> int:
    """A time of the API, as the database has it.

    Raises:
        InvalidRequest: It is too far away.
    """
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise InvalidRequest(f"{param} must lie between {FIRST_YEAR} and {LAST_YEAR}.", param=param)
    return round(at.timestamp() * 1000)


def etag_of(shown: BaseModel) -> str:
    """The version of something, from what is shown of it."""
    return '"' + hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:16] + '"'


def check_version(shown: BaseModel, if_match: str | None) -> None:
    """Refuse a change of something that somebody else has changed in the meantime.

    Raises:
        PreconditionFailed: It has another version than the one that the client knows.
    """
    known = [part.strip() for part in (if_match or "*").split(",")]
    if "*" not in known and etag_of(shown) not in known:
        raise PreconditionFailed("Somebody else has changed this in the meantime. Read it again before you change it.")


def with_etag(response: Response, shown: T, version: BaseModel | None = None) -> T:
    """Tell the version of what is answered.

    Args:
        version: What has the version, if that isn't all that is shown.
    """
    response.headers["etag"] = etag_of(version or cast("BaseModel", shown))
    return shown


def once(
    connection: Connection,
    actor: Actor,
    key: str | None,
    request: object,
    make: Callable[[], tuple[T, Mapping[str, object]]],
) -> tuple[T | None, Any]:
    """Do something at most once for an Idempotency-Key, within a `change`.

    Args:
        request: What is asked for: another request with the same key is refused.
        make: Does it; returns what is answered now, and what is to be known when it is asked for again.

    Returns:
        What `make` has made; or None, and what was to be known.

    Raises:
        RepeatedDifferently: The key came with another request before.
        InvalidRequest: The request has something in it that nothing could be kept of.
    """
    if key is None:
        return make()[0], None
    digest = hashlib.sha256(f"{actor.name}\n{key}".encode()).hexdigest()
    try:
        fingerprint = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
    except (OverflowError, UnicodeEncodeError):
        raise InvalidRequest("The request has a number or a text that can't be stored.") from None
    known = find_repeated(connection, digest)
    if known is not None:
        if known.fingerprint != fingerprint:
            raise RepeatedDifferently("This Idempotency-Key was used for another request within the last day.")
        return None, msgspec.json.decode(known.answer)
    made, kept = make()
    keep_repeated(connection, digest, Repeated(fingerprint, msgspec.json.encode(kept).decode()))
    return made, None


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half a character
        return False
