"""The gateway as an ASGI application."""

import importlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from threading import Lock
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app import __version__
from app.api.answering import AnsweringEndpoint
from app.api.anthropic.dialect import MESSAGES
from app.api.app import Gateway, without_old_models
from app.api.completions.dialect import COMPLETIONS
from app.api.dialects import Dialect, DialectServices
from app.api.key import key_router
from app.api.lazy import LazyApp, Refusing
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.api.ops import Drain, ops_router
from app.api.pages.docs import docs_router
from app.api.playground_services import Faults, PlaygroundServices
from app.api.relay.endpoint import RelayEndpoint
from app.api.relay.endpoints import RELAYED
from app.api.responses.dialect import RESPONSES
from app.api.sessions import sessions_router
from app.api.streaming.event_stream import StreamPolicy
from app.api.streaming.pacing import Pacer
from app.api.wire.addresses import ADMINISTRATION, CONSOLE, GOOGLE
from app.assembly.middleware import PUBLIC_PATHS, middleware
from app.assembly.resources import Resources, make_resources
from app.chat.fitting import RoomPolicy
from app.chat.relaying import RelayService
from app.chat.service import ChatService
from app.chat.session import SessionPolicy
from app.domain.caller import Caller, caller_of_key
from app.domain.emulation.schema import SchemaCompiler
from app.domain.usage import CallRecord
from app.limits.overview import LimitUse
from app.observe import logging as logs
from app.providers.base import BaseProvider
from app.settings import Settings

_TITLE = "kimi-ai-2api"
# In the order in which they are asked whether a request is theirs.
_DIALECTS = (MESSAGES, CHAT_COMPLETIONS, RESPONSES, COMPLETIONS)


def create_app(
    settings: Settings, further_providers: Sequence[BaseProvider] = (), faults: Faults | None = None
) -> FastAPI:
    """Assemble the gateway. Nothing is opened before its lifespan begins.

    Args:
        further_providers: Upstreams besides those that the settings name.
        faults: What the playground may let go wrong; of simulated upstreams only.

    Raises:
        SettingsError: Settings are at odds with what they refer to: a file, a module, a package that isn't installed.
    """
    logs.configure(settings.logs.level, settings.logs.format, worker_id=settings.logs.worker_id)
    return _gateway(settings, make_resources(settings, further_providers), faults)


@without_old_models()
def _gateway(settings: Settings, resources: Resources, faults: Faults | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with resources.opened():
            yield

    drain = Drain()
    services = DialectServices(
        registry=resources.registry,
        session_from_user=settings.sessions.from_user,
        max_messages=settings.listening.max_messages,
        snapshots=resources.snapshots,
        snapshot_max_characters=settings.sessions.max_characters,
    )
    service, stream_policy = _chat_service(settings, resources), _stream_policy(settings)

    def endpoint_of(dialect: Dialect) -> AnsweringEndpoint:
        return AnsweringEndpoint(
            dialect, services, service=service, stream_policy=stream_policy, metrics=resources.metrics
        )

    gemini = _made_once("app.api.gemini.app", lambda module: module.gemini_app(services, endpoint_of))
    app = Gateway(
        [endpoint_of(dialect) for dialect in _DIALECTS],
        [
            ops_router(
                providers=lambda: resources.registry.providers,
                sessions=resources.sessions,
                drain=drain,
                metrics=resources.metrics,
                database_fault=None if resources.records is None else resources.records.database.reason,
            ),
            *(dialect.routes(services) for dialect in _DIALECTS),
            sessions_router(resources.sessions),
            key_router(partial(_standing, resources), partial(_recorded_until, resources)),
            docs_router(_TITLE),
        ],
        public_paths=PUBLIC_PATHS,
        relayed=_relay_endpoints(settings, resources),
        annexes={
            GOOGLE: LazyApp(gemini),
            **_annexes(
                settings,
                resources,
                drain,
                PlaygroundServices(
                    chat=service,
                    dialects=services,
                    streams=stream_policy,
                    metrics=resources.metrics,
                    environment=[caller_of_key(key) for key in settings.access.api_keys],
                    faults=faults,
                ),
            ),
        },
        elsewhere=[lambda: gemini().openapi()],
        title=_TITLE,
        version=__version__,
        description="The Kimi web chat as the OpenAI API.",
        lifespan=lifespan,
        docs_url=None,  # see app.api.pages.docs
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # we have our own
        middleware=middleware(settings, resources, _DIALECTS, RELAYED),
    )
    app.state.drain = drain
    return app


def _annexes(
    settings: Settings, resources: Resources, drain: Drain, playground: PlaygroundServices
) -> dict[str, ASGIApp]:
    """What is imported at its first request."""
    records = resources.records
    if records is None:
        return {
            ADMINISTRATION: Refusing("There is no admin API without a database, and DATABASE_URL is none."),
            CONSOLE: Refusing("There is no console without a database, and DATABASE_URL is none."),
        }

    parts = _made_once(
        "app.assembly.administration",
        lambda module: module.Administration(settings, resources, records, drain, playground),
    )
    return {ADMINISTRATION: LazyApp(lambda: parts().api()), CONSOLE: LazyApp(lambda: parts().console())}


def _made_once(module: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    """Something whose module is imported when it is first needed."""
    making = Lock()

    @cache
    def made() -> Any:
        return make(importlib.import_module(module))

    def get() -> Any:
        with making:  # those who need it first may be on two threads
            return made()

    return get


def _relay_endpoints(settings: Settings, resources: Resources) -> list[RelayEndpoint]:
    service = RelayService(
        registry=resources.registry,
        on_call=_on_call(resources),
        on_refusal=_ledger(resources),
        limiter=None if resources.limits is None else resources.limits.limiter,
    )
    return [RelayEndpoint(endpoint, service, write_timeout=settings.streams.write_timeout) for endpoint in RELAYED]


def _ledger(resources: Resources) -> tuple[Callable[[CallRecord], None], ...]:
    return () if resources.records is None else (resources.records.ledger.call_ended,)


def _on_call(resources: Resources) -> tuple[Callable[[CallRecord], None], ...]:
    """Who is told of each call."""
    limits = () if resources.limits is None else resources.limits.on_call
    return (logs.log_call, resources.metrics.call_ended, *_ledger(resources), *limits)


def _chat_service(settings: Settings, resources: Resources) -> ChatService:
    limits = resources.limits
    return ChatService(
        registry=resources.registry,
        sessions=resources.sessions,
        policy=SessionPolicy(settings.sessions.replay_seconds, settings.sessions.max_characters),
        on_call=_on_call(resources),
        on_refusal=_ledger(resources),
        on_texts=(
            *((logs.TextLog(),) if settings.logs.texts else ()),
            *(() if resources.records is None else (resources.records.recorder,)),
        ),
        room=RoomPolicy(
            leaves_out=settings.site.tools_that_do_not_fit == "drop",
            long_messages=settings.site.long_messages,
            tells=settings.site.notices == "brief",
        ),
        compiler=SchemaCompiler(),
        limiter=None if limits is None else limits.limiter,
        cache=resources.answers,
    )


async def _standing(
    resources: Resources, caller: Caller
) -> tuple[Mapping[str, Mapping[str, int]] | None, Sequence[LimitUse]]:
    """What a caller has used, None where nothing is counted, and how it stands with its limits."""
    if resources.records is not None:
        return await resources.records.standing_of(caller)
    return None, () if resources.limits is None else resources.limits.uses(caller)


def _recorded_until(resources: Resources, caller_id: str) -> int | None:
    """Until when a caller is recorded, in milliseconds since the epoch; None if it isn't."""
    return None if resources.records is None else resources.records.recorder.until(caller_id)


def _stream_policy(settings: Settings) -> StreamPolicy:
    streams = settings.streams
    return StreamPolicy(
        grace=streams.grace,
        heartbeat=streams.heartbeat,
        piece_size=streams.typing_piece_size,
        pacer=Pacer(streams.typing_delay) if streams.typing_delay else None,
        typing_ceiling=streams.typing_max,
        write_timeout=streams.write_timeout,
    )
