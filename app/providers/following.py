"""Keeps this worker's registry as the database says: upstreams and routes come, change and go while it serves."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog
from msgspec import Struct

from app.providers.base import BaseProvider
from app.providers.entries import KeyedEntry, route_to
from app.providers.stored import Catalog, Opened, UpstreamFault
from app.storage.database import Connection
from app.storage.upstreams import UPSTREAMS_CHANGED, StoredRoute, list_routes, list_upstreams

_log = structlog.get_logger("kimi.upstream")
# How long an upstream that is new may take to tell its models, before it is asked for others' answers all the same.
_PREPARE_SECONDS = 1.0
# A call that knows an upstream from before it was replaced may come to it late: after others on its route, after its
# session's other calls, after its caller's limits. Longer than any of them may take.
_LATE_SECONDS = 3600.0
_LOOK_SECONDS = 5.0
_FIRST_SECONDS = 5.0

Found = tuple[Sequence[Opened], Sequence[StoredRoute]]


class Running(Struct, frozen=True):
    """A provider that is in use, and the entry that it was made of."""

    entry: KeyedEntry
    provider: BaseProvider


class UpstreamFollower:
    """Follows what changes in the database. See `Follower`.

    Args:
        catalog: Has the registry, and makes providers.
        late_seconds: How long a provider that was replaced has to be idle before it is closed.

    Attributes:
        faults: Why upstreams of the database can't be used here, by their names.
    """

    def __init__(self, catalog: Catalog, late_seconds: float = _LATE_SECONDS) -> None:
        self._catalog = catalog
        self._late_seconds = late_seconds
        self._running: dict[str, Running] = {}
        self._retired: dict[BaseProvider, float] = {}
        self._wanted: Found | None = None
        self._settling: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._known = asyncio.Event()
        self.faults: dict[str, str] = {}

    def read(self, connection: Connection, changed: frozenset[str] | None) -> Found | None:
        """See `Follower`."""
        if changed is not None and UPSTREAMS_CHANGED not in changed:
            return None
        upstreams = [self._catalog.opened(one) for one in list_upstreams(connection) if one.enabled]
        return upstreams, list_routes(connection)

    def take(self, changed: frozenset[str] | None, found: Found | None) -> None:  # noqa: ARG002 - a Follower's
        """See `Follower`."""
        if found is not None:
            self._wanted = found
            if self._settling is None or self._settling.done():
                self._settling = asyncio.create_task(self._settle())

    def away(self, seconds: float) -> None:  # noqa: ARG002 - a Follower's
        """See `Follower`: what was read last holds on."""
        self._known.set()

    async def ready(self) -> None:
        """Wait until the registry has what the database says, or the database is away. Only for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await self._known.wait()

    async def settled(self) -> None:
        """Wait until the registry has what was read last."""
        if self._settling is not None:
            await asyncio.wait([self._settling])

    async def aclose(self) -> None:
        """Close all upstreams."""
        tasks = [task for task in (self._settling, self._closing) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for provider in (*(running.provider for running in self._running.values()), *self._retired):
            await provider.aclose()

    async def _settle(self) -> None:
        while self._wanted is not None:
            (upstreams, routes), self._wanted = self._wanted, None
            await self._adopt(upstreams, routes)
            self._known.set()

    async def _adopt(self, upstreams: Sequence[Opened], routes: Sequence[StoredRoute]) -> None:
        faults, running = {}, {}
        for one in upstreams:
            known = self._running.get(one.stored.name)
            try:
                running[one.stored.name] = known if known and known.entry == one.entry else await self._started(one)
            except UpstreamFault as fault:
                faults[one.stored.name] = str(fault)
        before, self._running = self._running, running
        fresh = [one.provider for one in running.values() if one not in before.values()]
        if fresh:
            preparing = [asyncio.create_task(one.prepare()) for one in fresh]
            _, late = await asyncio.wait(preparing, timeout=_PREPARE_SECONDS)
            for task in late:
                task.cancel()
        registry = self._catalog.registry
        circles = registry.adopt(
            [one.provider for one in running.values()],
            {route.name: route_to(route.targets) for route in routes if not self._catalog.is_fixed(route.name)},
        )
        self._tell(faults, circles)
        for name, old in before.items():
            if running.get(name) is not old:
                await self._retire(old.provider)
        if fresh or len(running) != len(before):
            _log.info("upstreams_changed", upstreams=list(running), routes=len(routes))

    async def _started(self, opened: Opened) -> Running:
        if opened.entry is None:
            raise UpstreamFault(opened.fault)
        provider = self._catalog.provider(opened.entry)
        await provider.start()
        return Running(opened.entry, provider)

    def _tell(self, faults: dict[str, str], circles: dict[str, str]) -> None:
        for name, reason in faults.items():
            if self.faults.get(name) != reason:
                _log.warning("upstream_unusable", upstream=name, reason=reason, meaning="it is asked for nothing")
        for name, way in circles.items():
            _log.warning("route_left_out", route=name, reason=f"it leads in a circle: {way}")
        self.faults = faults

    async def _retire(self, provider: BaseProvider) -> None:
        await provider.retire()
        self._retired[provider] = asyncio.get_running_loop().time()
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._close_retired())

    async def _close_retired(self) -> None:
        """Close each provider that was replaced when it has been idle for long enough."""
        clock = asyncio.get_running_loop().time
        while self._retired:
            await asyncio.sleep(min(_LOOK_SECONDS, self._late_seconds))
            for provider, idle_since in list(self._retired.items()):
                if not provider.is_idle:
                    self._retired[provider] = clock()
                elif clock() - idle_since >= self._late_seconds:
                    del self._retired[provider]
                    await provider.aclose()
