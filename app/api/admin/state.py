"""How the gateway is: its state, workers, upstreams, models, sessions and settings."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, Field

from app.api.admin.common import Body, Writer, change, read
from app.api.admin.keys import time_at
from app.api.admin.services import AdminServices
from app.domain.conversation import SessionKey
from app.domain.errors import GatewayError, NotFound
from app.providers.base import BaseProvider
from app.storage.audit import note_action
from app.storage.limits import living_workers


class GatewayState(Body):
    """The state of the worker that answers, and of what it shares with others."""

    version: str
    started_at: AwareDatetime
    database: Annotated[Literal["ready", "away"], Field(description="the database of keys and calls")]
    sessions: str
    numbers: Annotated[dict[str, dict[str, float]], Field(description="gauges, as in /metrics")]


class WorkerState(Body):
    """A worker process."""

    id: str
    machine: str
    version: str
    started_at: AwareDatetime
    seen_at: AwareDatetime
    is_alive: bool


class WorkerList(Body):
    """Workers that were seen within the last day."""

    data: list[WorkerState]


class Upstream(Body):
    """An upstream, as this worker sees it."""

    name: str
    ready: bool
    details: dict[str, str]
    gauges: dict[str, float]
    models: list[str]


class UpstreamList(Body):
    """All upstreams."""

    data: list[Upstream]


class Probe(Body):
    """What came of a trial."""

    ok: bool
    code: str | None
    message: str | None


class Route(Body):
    """A name that clients may ask for, and who answers it."""

    model: str
    targets: Annotated[list[str], Field(description="provider/model, in the order in which they are asked")]


class RouteList(Body):
    """All names."""

    data: list[Route]


class SessionState(Body):
    """A session, without its texts."""

    id: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    expires_at: AwareDatetime
    messages: int
    characters: int


class SessionStates(Body):
    """The sessions of a key."""

    data: list[SessionState]


class SettingState(Body):
    """A setting, as it holds."""

    name: str
    group: str
    value: Annotated[str | None, Field(description="null for a secret, and for what isn't set")]
    source: Literal["environment", "file", "default"]
    is_set: bool
    meaning: str


class SettingList(Body):
    """All settings."""

    data: list[SettingState]


def state_router(services: AdminServices) -> APIRouter:
    """The routes of the gateway's state."""
    router = APIRouter()
    registry, sessions, database = services.registry, services.sessions, services.database

    @router.get("/state", summary="How the gateway is", tags=["state"])
    async def state() -> GatewayState:
        """Of the worker that answers; numbers of all workers are in Prometheus."""
        return GatewayState(
            version=services.version,
            started_at=time_at(services.started_at),
            database="away" if database.reason() else "ready",
            sessions=sessions.status(),
            numbers={name: dict(values) for name, values in services.state().items()},
        )

    @router.get("/workers", summary="List workers", tags=["state"])
    async def workers() -> WorkerList:
        """The newest first."""
        rows = await read(database, living_workers)
        return WorkerList(
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

    @router.get("/upstreams", summary="List upstreams", tags=["upstreams"])
    async def upstreams() -> UpstreamList:
        """Their state, as this worker sees it."""
        return UpstreamList(data=[_upstream(provider) for provider in registry.providers])

    @router.post("/upstreams/{name}/probe", summary="Try an upstream", tags=["upstreams"])
    async def probe(name: str, actor: Writer) -> Probe:  # noqa: ARG001 - trying takes the scope
        """Connects, and fetches what a first request would need; sends no message."""
        provider = next((one for one in registry.providers if one.name == name), None)
        if provider is None:
            raise NotFound(f"There is no upstream {name[:50]!r}.", param="name")
        try:
            await provider.connect()
        except GatewayError as error:
            return Probe(ok=False, code=error.code or error.type, message=error.message)
        return Probe(ok=True, code=None, message=None)

    @router.get("/routes", summary="List models and routes", tags=["upstreams"])
    async def routes() -> RouteList:
        """All names that clients may ask for."""
        return RouteList(
            data=[
                Route(model=name, targets=[f"{one.provider.name}/{one.spec.id}" for one in registry.resolve(name)])
                for name, _ in registry.model_ids()
            ]
        )

    @router.get("/keys/{key_id}/sessions", summary="List a key's sessions", tags=["sessions"])
    async def list_sessions(key_id: str) -> SessionStates:
        """Without texts. In memory, only those of the worker that answers."""
        return SessionStates(
            data=[
                SessionState(
                    id=session.id,
                    created_at=time_at(round(session.created_at * 1000)),
                    updated_at=time_at(round(session.updated_at * 1000)),
                    expires_at=time_at(round((session.updated_at + sessions.time_to_live) * 1000)),
                    messages=len(session.messages),
                    characters=session.characters,
                )
                for session in await sessions.sessions_of(key_id)
            ]
        )

    @router.delete(
        "/keys/{key_id}/sessions/{session_id:path}", summary="Forget a session", status_code=204, tags=["sessions"]
    )
    async def forget_session(key_id: str, session_id: Annotated[str, Path(max_length=256)], actor: Writer) -> None:
        """After the turn that may be running in it."""
        async with sessions.hold(SessionKey(key_id, session_id)) as held:
            if not await held.delete():
                raise NotFound("There is no such session, or it has expired.", param="session_id")
        await change(database, lambda connection: note_action(connection, actor, "session.delete", f"key:{key_id}"))

    @router.get("/settings", summary="List settings", tags=["state"])
    async def settings() -> SettingList:
        """As they hold, and where from; of secrets only whether they are set."""
        return SettingList(
            data=[
                SettingState(
                    name=one.name,
                    group=one.group,
                    value=one.value,
                    source=one.source,  # type: ignore[arg-type]  # one of these
                    is_set=one.is_set,
                    meaning=one.meaning,
                )
                for one in services.settings()
            ]
        )

    return router


def _upstream(provider: BaseProvider) -> Upstream:
    status = provider.status()
    return Upstream(
        name=provider.name,
        ready=status.ready,
        details=dict(status.details),
        gauges=dict(status.gauges),
        models=[spec.id for spec in provider.models],
    )
