"""Recordings: whose texts are kept, for a while; and the texts, which only administrators read."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Body,
    Cursor,
    Endpoint,
    Limit,
    Page,
    Writer,
    actor_of,
    change,
    is_row_id,
    read,
    router_of,
    sliced,
    time_at,
)
from app.api.admin.services import AdminServices
from app.api.logins import check_token
from app.api.middleware.auth import missing_scope
from app.api.request import RequestContext
from app.domain.durations import span
from app.domain.errors import InvalidRequest, NotFound
from app.recording.administration import (
    NoRecording,
    RecordingFault,
    read_texts,
    read_texts_of_call,
    remove_recording,
    start_recording,
    stop_recording,
)
from app.storage.audit import Actor
from app.storage.database import Connection
from app.storage.keys import key_of
from app.storage.recordings import RecordedText, Recording, count_of_texts, list_recordings
from app.storage.request_pages import row_of

T = TypeVar("T")


def reader_of_texts(request: Request) -> Actor:
    """Who asks for texts.

    Raises:
        MissingScope: The key or login may look only at what is no text.
        CrossSiteRequest: Another site may have sent it. Each look is in the log of changes.
    """
    context: RequestContext = request.scope["context"]
    if "admin" not in context.caller.scopes:
        raise missing_scope(request.scope, "admin", "read texts")
    check_token(request)
    return actor_of(request)


TextReader = Annotated[Actor, Depends(reader_of_texts)]


class NewRecording(Body):
    """A recording to be started."""

    key_id: Annotated[str, Field(min_length=1, max_length=100, description="Of any key, `API_MASTER_KEY`'s included.")]
    duration: Annotated[str, Field(max_length=20, description="From `15m` to `24h`; then it ends by itself.")]


class RecordingState(BaseModel):
    """A key whose calls' texts are kept, or were."""

    key_id: str
    key_name: Annotated[str, Field(description="`PROJECT/NAME`; the id again for a key of `API_MASTER_KEY`.")]
    running: bool
    started_at: AwareDatetime
    until: AwareDatetime
    started_by: str
    texts: Annotated[int, Field(description="How many calls' texts are kept.")]


class Texts(BaseModel):
    """What was said in a call."""

    at: Annotated[AwareDatetime, Field(description="When the call began.")]
    request_id: str
    key_id: str
    asked: Annotated[str, Field(description="The messages that the client sent.")]
    sent: Annotated[str | None, Field(description="What the upstream was sent; null if none was asked.")]
    answered: Annotated[str, Field(description="What came back, as far as it came, with tool calls.")]
    cut: Annotated[list[str], Field(description="Which of these lack their middle: 256 KiB stay.")]


class TextList(BaseModel):
    """The texts of a request: of several calls, if it was several."""

    data: list[Texts]


class RecordingEndpoints:
    """`/recordings`, and the texts of requests.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database

    def router(self) -> APIRouter:
        """The routes."""
        one = "/recordings/{key_id}"
        return router_of(
            "recordings",
            Endpoint("GET", "/recordings", self.list_all, "List recordings"),
            Endpoint("POST", "/recordings", self.start, "Record a key", status=201),
            Endpoint("POST", f"{one}/stop", self.stop, "Stop recording a key", errors=(404,)),
            Endpoint("DELETE", one, self.delete, "Stop, and delete all texts", status=204, errors=(404,)),
            Endpoint("GET", "/requests/{call_id}/texts", self.texts, "Read the texts of a request", errors=(404,)),
        )

    async def list_all(self, cursor: Cursor = None, limit: Limit = 50) -> Page[RecordingState]:
        """Those that run, and those that have ended within the last seven days and weren't deleted; by key."""

        def listed(connection: Connection) -> list[RecordingState]:
            counts = count_of_texts(connection)
            return [_shown(one, counts.get(one.key_id, 0)) for one in list_recordings(connection)]

        return sliced(await read(self._database, listed), lambda one: (one.key_id,), cursor, limit, str)

    async def start(self, body: NewRecording, actor: Writer) -> RecordingState:
        """It counts on every worker within two seconds. A key that is recorded already is, for so long from now on."""
        seconds = _seconds(body.duration)

        def start(connection: Connection) -> RecordingState:
            self._check(connection, body.key_id)
            return _with_count(connection, start_recording(self._database, connection, actor, body.key_id, seconds))

        return await self._changed(start)

    async def stop(self, key_id: str, actor: Writer) -> RecordingState:
        """What was recorded stays, for seven days at most. A recording that has ended stays as it is."""

        def stop(connection: Connection) -> RecordingState:
            return _with_count(connection, stop_recording(self._database, connection, actor, key_id))

        return await self._changed(stop)

    async def delete(self, key_id: str, actor: Writer) -> None:
        """Revoking the key does the same."""
        await self._changed(lambda connection: remove_recording(self._database, connection, actor, key_id))

    async def texts(self, call_id: str, actor: TextReader) -> TextList:
        """By the ledger's id or by the `X-Request-ID`. Each look is in the log of changes. Not for `admin:read`."""

        def found(connection: Connection) -> Sequence[RecordedText]:
            row = row_of(connection, int(call_id)) if is_row_id(call_id) else None
            if row is None:
                return read_texts(connection, actor, call_id)
            return read_texts_of_call(connection, actor, row)

        texts = await self._changed(found)
        if not texts:
            raise NotFound("No texts of such a request were recorded, or they have been deleted.", param="call_id")
        return TextList(data=[_texts(one) for one in texts])

    async def _changed(self, work: Callable[[Connection], T]) -> T:
        """Change something, and say in the API's words what was wrong with it."""
        try:
            return await change(self._database, work)
        except NoRecording as fault:
            raise NotFound(str(fault), param=fault.param) from None
        except RecordingFault as fault:
            raise InvalidRequest(str(fault), param=fault.param) from None

    def _check(self, connection: Connection, key_id: str) -> None:
        """Refuse a key that doesn't exist.

        Raises:
            RecordingFault: It doesn't.
        """
        if key_id not in self._services.environment_keys and key_of(connection, key_id) is None:
            raise RecordingFault(f"There is no key {key_id[:50]!r}.", "key_id")


def _with_count(connection: Connection, recording: Recording) -> RecordingState:
    return _shown(recording, count_of_texts(connection, recording.key_id).get(recording.key_id, 0))


def _shown(recording: Recording, texts: int) -> RecordingState:
    return RecordingState(
        key_id=recording.key_id,
        key_name=recording.key_name,
        running=recording.is_running,
        started_at=time_at(recording.started_at),
        until=time_at(recording.until),
        started_by=recording.started_by,
        texts=texts,
    )


def _texts(one: RecordedText) -> Texts:
    return Texts(
        at=time_at(one.at),
        request_id=one.request_id,
        key_id=one.key_id,
        asked=one.asked,
        sent=one.sent,
        answered=one.answered,
        cut=list(one.cut),
    )


def _seconds(text: str) -> float:
    try:
        return span(text)
    except ValueError as error:
        raise InvalidRequest(f"duration: {error}.", param="duration") from None
