"""`/health` and `/ready`: for load balancers, orchestrators and people."""

import asyncio
import importlib
from collections.abc import Callable, Iterable
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel

from app import __version__
from app.api.pages.addresses import gateway_address
from app.api.pages.browsers import preferred_language, wants_page
from app.api.pages.front import FRONT_PAGE_HEADERS, LANGUAGES, State, front_page
from app.observe.metrics import Metrics
from app.providers.base import BaseProvider
from app.sessions.base import SessionStore

_NAME = "kimi-ai-2api"


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """May this worker be sent requests, and why."""

    status: Literal["ready", "degraded", "not_ready"]
    sessions: str
    # Why sessions can't be kept.
    sessions_reason: str | None = None
    # `ready` or `away`, and why; null where there is no database.
    database: str | None = None
    database_reason: str | None = None
    providers: dict[str, dict[str, str]]


class About(BaseModel):
    """What is running here."""

    name: str
    docs: str
    openai_base_url: str


class Drain:
    """Set when the process is about to end: `/ready` sends new requests elsewhere, feeds end."""

    active = False


def ops_router(
    *,
    providers: Callable[[], Iterable[BaseProvider]],
    sessions: SessionStore,
    drain: Drain,
    metrics: Metrics,
    database_fault: Callable[[], str] | None = None,
) -> APIRouter:
    """The routes that tell no secrets; all but `/metrics` are open to everybody.

    Args:
        providers: Those that there are at the moment.
        database_fault: Why the database is away, in a few words, or nothing; None if there is none.
    """
    router = APIRouter(tags=["operations"])

    def readiness() -> Readiness:
        states = {provider.name: provider.status() for provider in providers()}
        store = sessions.status()
        fault = database_fault() or None if database_fault is not None else None
        serving = not drain.active and any(state.ready for state in states.values())
        details = {
            name: {"status": "ready" if state.ready else "not_ready", **state.details} for name, state in states.items()
        }
        # Without the session store everything but a session's next turn can still be answered: no reason to send all
        # requests away.
        status: Literal["ready", "degraded"] = "ready" if store == "ready" else "degraded"
        return Readiness(
            status=status if serving else "not_ready",
            sessions=store,
            sessions_reason=sessions.fault() or None,
            database=None if database_fault is None else "away" if fault else "ready",
            database_reason=fault,
            providers=details,
        )

    @router.get(
        "/",
        summary="What is this",
        response_model=About,
        responses={200: {"content": {"text/html": {}}, "description": "A few facts, or for browsers a page"}},
    )
    async def about(request: Request, response: Response) -> About | Response:
        """A page for browsers: state, addresses, a first request. JSON for all other clients."""
        prefix = request.scope.get("root_path", "")
        if not wants_page(request.headers.get("accept", "")):
            response.headers["vary"] = FRONT_PAGE_HEADERS["vary"]
            return About(name=_NAME, docs=f"{prefix}/docs", openai_base_url=f"{prefix}/v1")
        page = front_page(
            _NAME,
            __version__,
            gateway_address(request),
            prefix,
            _state(readiness(), stopping=drain.active),
            preferred_language(request.headers.get("accept-language", ""), LANGUAGES),
        )
        return HTMLResponse(page, headers=FRONT_PAGE_HEADERS)

    @router.get("/health", summary="Is the process alive", response_model=Health)
    async def health() -> Health:
        """Always 200 while the event loop turns; asks nobody."""
        return Health()

    @router.get(
        "/ready",
        summary="May this worker serve",
        response_model=Readiness,
        response_model_exclude_none=True,
        responses={503: {"model": Readiness, "description": "Send requests elsewhere"}},
    )
    async def ready(response: Response) -> Readiness:
        """200 if at least one upstream can be used, as far as is known; `degraded` says that sessions can't be read."""
        report = readiness()
        response.status_code = 503 if report.status == "not_ready" else 200
        return report

    @router.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    )
    async def read_metrics() -> Response:
        """Opened by METRICS_KEY, by a key of API_MASTER_KEY, or by one that has the scope `metrics`."""
        # Only now, and on a thread: see there.
        module = await asyncio.to_thread(importlib.import_module, "app.observe.exposition")
        return Response(module.Exposition(metrics).text(), media_type=module.CONTENT_TYPE)

    return router


def _state(report: Readiness, *, stopping: bool) -> State:
    """What the front page says of the gateway's state."""
    failing = [
        (name, details.get("nonce_failure", ""))
        for name, details in report.providers.items()
        if details["status"] != "ready"
    ]
    return State(report.status, stopping, failing)
