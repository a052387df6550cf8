"""The only place where the gateway is put together: providers, stores, middleware, routes."""

import asyncio
import importlib
import multiprocessing
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.api.answering import AnsweringEndpoint
from app.api.anthropic.dialect import MESSAGES
from app.api.app import Gateway
from app.api.completions.dialect import COMPLETIONS
from app.api.dialect import DialectServices
from app.api.middleware.auth import ApiKeys, AuthMiddleware
from app.api.middleware.context import RequestContextMiddleware
from app.api.middleware.intake import IntakeMiddleware
from app.api.middleware.tracing import TracingMiddleware
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.api.ops import Drain, ops_router
from app.api.responses.dialect import RESPONSES
from app.api.sessions import sessions_router
from app.api.streaming.event_stream import StreamPolicy
from app.api.streaming.pacing import Pacer
from app.chat.service import ChatService
from app.chat.session import SessionPolicy
from app.domain.prompt import PromptLimit
from app.domain.spans import Trace, no_trace
from app.domain.usage import CallRecord
from app.observe import logging as logs
from app.observe.loop_lag import LoopLag
from app.observe.metrics import Metrics
from app.providers.base import BaseProvider, ModelSpec
from app.providers.config import (
    Choice,
    ProvidersFile,
    ProvidersFileError,
    Traffic,
    configured,
    read_providers_file,
)
from app.providers.http import HttpClient, Tls
from app.providers.kimi.nonce import NoncePolicy
from app.providers.kimi.page import PageReader
from app.providers.kimi.provider import KimiProvider
from app.providers.openai_compatible.presets import PRESETS
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.openai_compatible.upstream import Upstream
from app.providers.registry import ProviderRegistry, RouteRow
from app.providers.resilience.breaker import BreakerPolicy, CircuitBreaker
from app.providers.resilience.bulkhead import Bulkhead
from app.providers.resilience.guard import Guard
from app.providers.resilience.retry import RetryBudget, RetryPolicy
from app.sessions.base import SessionStore, SnapshotStore
from app.sessions.memory import MemorySessionStore, MemorySnapshotStore
from app.settings import Settings, SettingsError, environment

if TYPE_CHECKING:  # imported only where they are wanted: see `_tracing` and `_redis_sessions`
    from app.observe.otel import Tracing
    from app.sessions.redis.store import RedisSessionStore

PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
# At each upstream with an API, from this worker; PROVIDERS_FILE may say otherwise.
_API_CONCURRENCY = 100
_READABLE_HEADERS = (
    "openai-processing-ms request-id retry-after x-context-dropped x-context-shortened x-fallback x-ignored-params "
    "x-prompt-chars x-prompt-tokens x-provider x-request-id x-session-action x-session-id"
)
# In the order in which they are asked whether a request is theirs.
_DIALECTS = (MESSAGES, CHAT_COMPLETIONS, RESPONSES, COMPLETIONS)


def build_app(settings: Settings, further_providers: Sequence[BaseProvider] = ()) -> FastAPI:
    """The gateway as an ASGI application. Nothing is opened before its lifespan begins.

    Args:
        further_providers: Upstreams besides those that the settings name.
    """
    logs.configure(settings.log_level, settings.log_format, worker_id=settings.worker_id)
    tracing = _tracing(settings)
    metrics = Metrics(lambda: _state(registry.providers, sessions))
    trace = metrics.timing(tracing.span if tracing else no_trace)
    registry = build_registry(settings, trace, further_providers)
    sessions = _session_store(settings, trace)
    lag = LoopLag(metrics.loop_lag)
    service = ChatService(
        registry=registry,
        sessions=sessions,
        policy=SessionPolicy(settings.session_replay_seconds, settings.session_max_characters),
        on_call=partial(_on_call, metrics),
        on_texts=logs.log_texts if settings.log_texts else None,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                stack.callback(tracing.close)
            watching = asyncio.create_task(lag.watch())
            stack.callback(watching.cancel)
            stack.push_async_callback(sessions.aclose)
            await sessions.start()
            for provider in registry.providers:
                stack.push_async_callback(provider.aclose)
                await provider.start()
            yield

    drain = Drain()
    services = DialectServices(
        registry=registry,
        session_from_user=settings.session_from_user,
        max_messages=settings.max_messages,
        snapshots=_snapshot_store(settings, sessions),
        snapshot_max_characters=settings.session_max_characters,
    )
    stream_policy = _stream_policy(settings)
    app = Gateway(
        [
            AnsweringEndpoint(dialect, services, service=service, stream_policy=stream_policy, metrics=metrics)
            for dialect in _DIALECTS
        ],
        [
            ops_router(providers=registry.providers, sessions=sessions, drain=drain, metrics=metrics),
            *(dialect.routes(services) for dialect in _DIALECTS),
            sessions_router(sessions),
        ],
        public_paths=PUBLIC_PATHS,
        title="kimi-ai-2api",
        version="0.1.0",
        description="The Kimi web chat as the OpenAI API.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # we have our own
        middleware=_middleware(settings, metrics, lag, tracing),
    )
    app.state.drain = drain
    return app


def _session_store(settings: Settings, trace: Trace) -> "MemorySessionStore | RedisSessionStore":
    if not settings.session_store_url.get_secret_value().startswith("memory:"):
        return _redis_sessions(settings, trace)
    if _one_of_several_processes():
        structlog.get_logger("kimi.build").warning(
            "sessions_not_shared",
            meaning="several processes share this port, each with sessions of its own: clients will be forgotten. "
            "Set SESSION_STORE_URL to a Redis, or run ./dev cluster",
        )
    return MemorySessionStore(
        max_sessions=settings.max_session_size,
        time_to_live=settings.session_cache_ttl,
        lock_wait=settings.session_lock_wait,
        trace=trace,
    )


def _redis_sessions(settings: Settings, trace: Trace) -> "RedisSessionStore":
    # Redis's client takes 6 MB, which most gateways have no use for.
    module = importlib.import_module("app.sessions.redis.store")
    try:
        store: RedisSessionStore = module.RedisSessionStore(
            settings.session_store_url.get_secret_value(),
            max_sessions_per_caller=settings.max_session_size,
            time_to_live=settings.session_cache_ttl,
            lock_wait=settings.session_lock_wait,
            lock_ttl=settings.session_lock_ttl,
            trace=trace,
        )
    except ValueError as error:
        raise SettingsError(f"SESSION_STORE_URL: {error}") from None
    return store


def _snapshot_store(settings: Settings, sessions: "MemorySessionStore | RedisSessionStore") -> SnapshotStore:
    """Next to the sessions."""
    most, time_to_live = settings.max_stored_responses, settings.response_cache_ttl
    if isinstance(sessions, MemorySessionStore):
        return MemorySnapshotStore(max_snapshots=most, time_to_live=time_to_live)
    return sessions.snapshots(max_snapshots_per_caller=most, time_to_live=time_to_live)


def _one_of_several_processes() -> bool:
    """Is this a process of `uvicorn --workers N`? (Of `--reload` there is only one at a time.)"""
    return multiprocessing.parent_process() is not None and "--reload" not in sys.argv


def _tracing(settings: Settings) -> "Tracing | None":
    if not settings.tracing_endpoint:
        return None
    try:
        # Not at the top of the file: its packages are an optional extra.
        module = importlib.import_module("app.observe.otel")
    except ImportError as error:
        raise SettingsError("TRACING_ENDPOINT: needs the packages of requirements-tracing.txt") from error
    tracing: Tracing = module.Tracing(settings.tracing_endpoint, settings.worker_id)
    return tracing


def _on_call(metrics: Metrics, record: CallRecord) -> None:
    logs.log_call(record)
    metrics.call_ended(record)


def _state(providers: Iterable[BaseProvider], sessions: SessionStore) -> dict[str, dict[str, float]]:
    """The numbers of the moment, for the metrics."""
    state: dict[str, dict[str, float]] = {"kimi_session_store_up": {"store": float(sessions.status() == "ready")}}
    if (count := sessions.count()) is not None:
        state["kimi_sessions"] = {"store": float(count)}
    for provider in providers:
        status = provider.status()
        for name, value in {"ready": float(status.ready), **status.gauges}.items():
            state.setdefault(f"kimi_provider_{name}", {})[provider.name] = value
    return state


def build_registry(
    settings: Settings, trace: Trace = no_trace, further_providers: Iterable[BaseProvider] = ()
) -> ProviderRegistry:
    """All providers, line by line."""
    file = _providers_file(settings)
    registry = ProviderRegistry(settings.default_model, _routes(settings, file))
    tls = Tls()
    registry.register(_kimi_provider(settings, trace, tls))
    try:
        for provider in (*_api_providers(settings, file, trace, tls), *further_providers):
            registry.register(provider)
    except (ValueError, ProvidersFileError) as error:
        raise SettingsError(f"PROVIDERS_FILE: {error}") from None
    try:
        registry.check_routes()
    except ValueError as error:
        raise SettingsError(f"MODEL_ROUTES: {error}") from None
    return registry


def _providers_file(settings: Settings) -> ProvidersFile:
    try:
        return read_providers_file(settings.providers_file) if settings.providers_file else ProvidersFile()
    except ProvidersFileError as error:
        lines = str(error).splitlines()
        raise SettingsError("\n".join(f"PROVIDERS_FILE: {line}" for line in lines)) from None


def _routes(settings: Settings, file: ProvidersFile) -> dict[str, RouteRow]:
    """The file's, and those of the setting, which win."""
    routes = {
        name: RouteRow(tuple(targets), tuple(targets.values()) if isinstance(targets, dict) else None)
        for name, targets in file.routes.items()
    }
    routes |= {name: RouteRow(row.targets, row.weights) for name, row in settings.model_routes.items()}
    if "kimi" not in settings.known_models:
        routes.setdefault("kimi", RouteRow((settings.default_model,)))
    return routes


def _kimi_provider(settings: Settings, trace: Trace, tls: Tls) -> KimiProvider:
    limit = PromptLimit(settings.context_max_length, settings.context_length_unit)
    return KimiProvider(
        models=[
            ModelSpec(id=public, upstream_id=upstream, prompt_limit=limit, owned_by="moonshotai")
            for public, upstream in settings.known_models.items()
        ],
        page=PageReader(
            page_url=settings.chat_page_url, ajax_url=settings.upstream_url or None, timeout=settings.page_timeout
        ),
        nonce_policy=NoncePolicy(renew_after=settings.nonce_max_age),
        client=HttpClient(max_reply_bytes=settings.max_reply_bytes, tls=tls),
        guard=_guard(settings, trace),
        keep_upstream_session=settings.keep_upstream_session,
        trace=trace,
    )


def _api_providers(settings: Settings, file: ProvidersFile, trace: Trace, tls: Tls) -> list[OpenAICompatibleProvider]:
    """The presets that are switched on, and the file's rows."""
    choices = {name: Choice(*settings.preset_choice(name)) for name in PRESETS}
    defaults = Traffic(
        concurrency=_API_CONCURRENCY,
        queue=settings.upstream_queue_size,
        queue_timeout=settings.upstream_queue_timeout,
        timeout=settings.request_timeout,
        idle_timeout=settings.stream_idle_timeout,
        retries=settings.max_retries,
        breaker=_breaker_policy(settings),
    )
    return [
        _api_provider(settings, upstream, traffic, trace, tls)
        for upstream, traffic in configured(file, choices, environment(), defaults)
    ]


def _api_provider(
    settings: Settings, upstream: Upstream, traffic: Traffic, trace: Trace, tls: Tls
) -> OpenAICompatibleProvider:
    guard = Guard(
        bulkhead=Bulkhead(
            slots=traffic.concurrency, queue_size=traffic.queue, queue_timeout=traffic.queue_timeout, trace=trace
        ),
        breaker=CircuitBreaker(traffic.breaker),
        retry=RetryPolicy(retries=traffic.retries),
        budget=RetryBudget(fraction=settings.retry_budget, reserve=max(10, traffic.retries)),
        timeout=traffic.timeout,
        idle_timeout=traffic.idle_timeout,
    )
    return OpenAICompatibleProvider(
        upstream,
        # One each: no upstream sees a connection that another has used.
        client=HttpClient(max_reply_bytes=settings.max_reply_bytes, keep_cookies=False, tls=tls),
        guard=guard,
        max_reply_bytes=settings.max_reply_bytes,
        trace=trace,
    )


def _breaker_policy(settings: Settings) -> BreakerPolicy:
    return BreakerPolicy(
        failure_rate=settings.breaker_failure_rate,
        minimum_calls=settings.breaker_minimum_calls,
        open_seconds=settings.breaker_open_seconds,
        shut_out_seconds=settings.breaker_challenge_seconds,
    )


def _guard(settings: Settings, trace: Trace) -> Guard:
    return Guard(
        bulkhead=Bulkhead(
            slots=settings.upstream_concurrency,
            queue_size=settings.upstream_queue_size,
            queue_timeout=settings.upstream_queue_timeout,
            trace=trace,
        ),
        breaker=CircuitBreaker(_breaker_policy(settings)),
        retry=RetryPolicy(retries=settings.max_retries),
        budget=RetryBudget(fraction=settings.retry_budget, reserve=max(10, settings.max_retries)),
        timeout=settings.request_timeout,
    )


def _stream_policy(settings: Settings) -> StreamPolicy:
    return StreamPolicy(
        grace=settings.stream_grace_seconds,
        heartbeat=settings.heartbeat_seconds,
        piece_size=settings.typing_piece_size,
        pacer=Pacer(settings.typing_delay_seconds) if settings.typing_delay_seconds else None,
        typing_ceiling=settings.typing_max_seconds,
        write_timeout=settings.stream_write_timeout,
    )


def _middleware(settings: Settings, metrics: Metrics, lag: LoopLag, tracing: "Tracing | None") -> list[Middleware]:
    """In the order in which a request meets them."""
    keys = None if settings.auth_disabled else ApiKeys(settings.api_keys)
    if keys is None:
        structlog.get_logger("kimi.build").warning(
            "auth_disabled", meaning="everybody who reaches this port may use it"
        )
    layers = [
        Middleware(
            RequestContextMiddleware,
            metrics=metrics,
            error_forms=[dialect.errors for dialect in _DIALECTS],
            endpoints={dialect.path: dialect.errors for dialect in _DIALECTS},
        )
    ]
    if tracing is not None:
        layers.append(Middleware(TracingMiddleware, open_span=tracing.request))
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_READABLE_HEADERS.split(),
        )
        layers.append(cors)
    layers.append(
        Middleware(
            IntakeMiddleware,
            max_bytes=settings.max_body_bytes,
            max_headers=settings.max_headers,
            lag=lag,
            max_lag=settings.max_loop_lag_seconds,
        )
    )
    metrics_keys = [*settings.api_keys, *filter(None, [settings.metrics_key.get_secret_value()])]
    special = {"/metrics": ApiKeys(metrics_keys)} if keys is not None or settings.metrics_key else {}
    layers.append(Middleware(AuthMiddleware, keys=keys, public_paths=PUBLIC_PATHS, special=special))
    return layers
