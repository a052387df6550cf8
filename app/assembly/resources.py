"""Everything that is opened when the gateway starts and closed when it ends."""

import asyncio
import importlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from app.assembly.limits import Limits, limits_in_memory, warn_of_unknown_upstreams
from app.assembly.providers import Providers, build_providers
from app.assembly.stores import answer_cache, session_store, snapshot_store
from app.chat.answer_cache import AnswerCache
from app.domain.spans import no_trace
from app.observe.loop_lag import LoopLag
from app.observe.metrics import Metrics
from app.providers.base import BaseProvider
from app.providers.registry import ProviderRegistry
from app.sessions.base import SessionStore, SnapshotStore
from app.settings import Settings, SettingsError
from app.settings.limits import LimitSettings

if TYPE_CHECKING:  # imported where they are made, if they are wanted
    from app.assembly.database import Records
    from app.observe.otel import Tracing


class Resources(Struct, frozen=True):
    """What the gateway works with.

    Args:
        tracing: None if traces are switched off.
        loop_lag: Measures while the resources are open.
        snapshots: Lives in the session store, and is opened and closed with it.
        answers: Likewise; None if no answers are kept.
        records: Keys and ledger; None without a database.
        limits: None if nothing can be limited.
        limit_settings: What was set of them.
    """

    metrics: Metrics
    tracing: "Tracing | None"
    loop_lag: LoopLag
    sessions: SessionStore
    snapshots: SnapshotStore
    answers: AnswerCache | None
    registry: ProviderRegistry
    records: "Records | None"
    limits: Limits | None
    limit_settings: LimitSettings

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Open everything, and close it in the reverse order."""
        async with AsyncExitStack() as stack:
            if self.tracing is not None:
                stack.callback(self.tracing.close)
            stack.callback(asyncio.create_task(self.loop_lag.watch()).cancel)
            stack.push_async_callback(self.sessions.aclose)
            await self.sessions.start()
            # Those of the settings; those that the database adds are opened with it.
            for provider in self.registry.providers:
                stack.push_async_callback(provider.aclose)
                await provider.start()
            if self.records is not None:
                await stack.enter_async_context(self.records.opened())
            elif self.limits is not None:
                stack.push_async_callback(self.limits.leases.aclose)
            if self.records is None or self.records.database.prepared:  # else it isn't known which ones there are
                names = [provider.name for provider in self.registry.providers]
                warn_of_unknown_upstreams(self.limit_settings, names)
            yield


def make_resources(settings: Settings, further_providers: Sequence[BaseProvider] = ()) -> Resources:
    """Make everything from the settings, without opening it.

    Raises:
        SettingsError: Settings are at odds with what they refer to.
    """
    tracing = _tracing(settings)
    metrics = Metrics(lambda: _state(registry.providers, sessions, records, limits))
    trace = metrics.timing(tracing.span if tracing else no_trace)
    providers = build_providers(settings, trace, further_providers)
    registry = providers.registry
    sessions = session_store(settings, trace)
    records = _records(settings, metrics, providers)
    limits = limits_in_memory(settings.limits, metrics) if records is None else records.limits
    return Resources(
        metrics=metrics,
        tracing=tracing,
        loop_lag=LoopLag(metrics.loop_lag),
        sessions=sessions,
        snapshots=snapshot_store(settings, sessions),
        answers=answer_cache(settings, sessions, metrics),
        registry=registry,
        records=records,
        limits=limits,
        limit_settings=settings.limits,
    )


def _records(settings: Settings, metrics: Metrics, providers: Providers) -> "Records | None":
    if not settings.database.enabled:
        return None
    # Imported only now: SQLAlchemy is large.
    try:
        module = importlib.import_module("app.assembly.database")
    except ImportError as error:
        raise SettingsError(f"DATABASE_URL: this system has no {error.name}; set it to none") from error
    records: Records = module.make_records(settings, metrics, providers)
    return records


def _tracing(settings: Settings) -> "Tracing | None":
    if not settings.logs.tracing_endpoint:
        return None
    try:
        # Not at the top of the file: its packages are an optional extra.
        module = importlib.import_module("app.observe.otel")
    except ImportError as error:
        raise SettingsError("TRACING_ENDPOINT: needs the packages of requirements-tracing.txt") from error
    tracing: Tracing = module.Tracing(settings.logs.tracing_endpoint, settings.logs.worker_id)
    return tracing


def _state(
    providers: Iterable[BaseProvider], sessions: SessionStore, records: "Records | None", limits: Limits | None
) -> dict[str, dict[str, float]]:
    """The numbers of the moment, for the metrics."""
    state: dict[str, dict[str, float]] = {"kimi_session_store_up": {"store": float(sessions.status() == "ready")}}
    if (count := sessions.count()) is not None:
        state["kimi_sessions"] = {"store": float(count)}
    for provider in providers:
        status = provider.status()
        for name, value in {"ready": float(status.ready), **status.gauges}.items():
            state.setdefault(f"kimi_provider_{name}", {})[provider.name] = value
    if records is not None:
        state |= records.state()
    return state if limits is None else state | limits.state()
