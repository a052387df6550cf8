"""How the gateway is: its state, workers, sessions and settings."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import Cursor, Endpoint, Limit, Page, Writer, change, read, router_of, sliced, time_at
from app.api.admin.services import AdminServices
from app.domain.conversation import Session, SessionKey
from app.domain.errors import NotFound
from app.storage.audit import note_action
from app.storage.limits import seen_workers


class GatewayState(BaseModel):
    """The state of the worker that answers, and of what it shares with others."""

    version: str
    worker: Annotated[str, Field(description="The worker that answers.")]
    started_at: AwareDatetime
    database: Annotated[Literal["ready", "away"], Field(description="The database of keys and calls.")]
    sessions: str
    numbers: Annotated[dict[str, dict[str, float]], Field(description="Gauges, as in /metrics.")]


class WorkerState(BaseModel):
    """A worker process."""

    id: str
    machine: str
    version: str
    started_at: AwareDatetime
    seen_at: AwareDatetime
    is_alive: bool


class SessionState(BaseModel):
    """A session, without its texts."""

    id: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    expires_at: AwareDatetime
    messages: int
    characters: int


class SettingState(BaseModel):
    """A setting, as it holds."""

    name: str
    group: str
    value: Annotated[str | None, Field(description="Null for a secret, and for what isn't set.")]
    source: Literal["environment", "file", "default"]
    is_set: bool
    meaning: str


class StateEndpoints:
    """`/state`, `/workers`, `/settings` and the sessions of a key.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database

    def router(self) -> APIRouter:
        """The routes."""
        sessions = "/keys/{key_id}/sessions"
        session = f"{sessions}/{{session_id:path}}"
        return router_of(
            "state",
            Endpoint("GET", "/state", self.state, "How the gateway is"),
            Endpoint("GET", "/workers", self.workers, "List workers"),
            Endpoint("GET", "/settings", self.settings, "List settings"),
            Endpoint("GET", sessions, self.list_sessions, "List a key's sessions"),
            Endpoint("DELETE", session, self.forget_session, "Forget a session", status=204, errors=(404,)),
        )

    async def state(self) -> GatewayState:
        """Of the worker that answers. Prometheus has the numbers of all workers."""
        services = self._services
        return GatewayState(
            version=services.version,
            worker=services.worker,
            started_at=time_at(services.started_at),
            database="away" if services.database.reason() else "ready",
            sessions=services.sessions.status(),
            numbers={name: dict(values) for name, values in services.state().items()},
        )

    async def workers(self) -> Page[WorkerState]:
        """Those that were seen within the last day, the newest first."""
        rows = await read(self._database, lambda connection: seen_workers(self._database, connection))
        return Page(
            data=[
                WorkerState(
                    id=row.id,
                    machine=row.machine,
                    version=row.version,
                    started_at=time_at(row.started_at),
                    seen_at=time_at(row.seen_at),
                    is_alive=row.is_alive,
                )
                for row in rows
            ]
        )

    async def settings(self) -> Page[SettingState]:
        """As they hold, and where they come from. Of secrets only whether they are set."""
        return Page(
            data=[
                SettingState(
                    name=one.name,
                    group=one.group,
                    value=one.value,
                    source=one.source,
                    is_set=one.is_set,
                    meaning=one.meaning,
                )
                for one in self._services.settings()
            ]
        )

    async def list_sessions(self, key_id: str, cursor: Cursor = None, limit: Limit = 50) -> Page[SessionState]:
        """The newest first, without texts. With sessions in memory, only those of the worker that answers."""
        sessions = [self._session(session) for session in await self._services.sessions.sessions_of(key_id)]
        return sliced(
            sessions, lambda one: (-round(one.created_at.timestamp() * 1000), one.id), cursor, limit, int, str
        )

    async def forget_session(
        self, key_id: str, session_id: Annotated[str, Path(max_length=256)], actor: Writer
    ) -> None:
        """After the turn that may be running in it."""
        async with self._services.sessions.hold(SessionKey(key_id, session_id)) as held:
            if not await held.delete():
                raise NotFound("There is no such session, or it has expired.", param="session_id")
        await change(
            self._database, lambda connection: note_action(connection, actor, "session.delete", f"key:{key_id}")
        )

    def _session(self, session: Session) -> SessionState:
        return SessionState(
            id=session.id,
            created_at=time_at(round(session.created_at * 1000)),
            updated_at=time_at(round(session.updated_at * 1000)),
            expires_at=time_at(round((session.updated_at + self._services.sessions.time_to_live) * 1000)),
            messages=len(session.messages),
            characters=session.characters,
        )
