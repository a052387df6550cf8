"""Upstreams, models and routes: who answers what; those of the database are added, changed, tried and removed."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Response
from fastapi import Body as RequestBody
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Body,
    Endpoint,
    IdempotencyKey,
    IfMatch,
    Page,
    Writer,
    change,
    check_version,
    etag_of,
    once,
    read,
    router_of,
    time_at,
    with_etag,
)
from app.api.admin.services import AdminServices
from app.api.admin.trying import Answerers, Probe, probed, tried, who_answers
from app.domain.errors import InvalidRequest, KeyStoreUnavailable, NotFound, PreconditionFailed
from app.providers.base import BaseProvider
from app.providers.entries import KeyedEntry
from app.providers.stored import NotStored, Opened, UpstreamFault, document_of
from app.storage.database import Connection
from app.storage.upstreams import StoredRoute, list_routes

T = TypeVar("T")
Name = Annotated[str, Path(max_length=256)]
Source = Literal["settings", "database"]
Entry = Annotated[
    dict[str, Any] | None,
    Field(
        description="As in an entry of PROVIDERS_FILE, without what is secret. Null for one of the settings, and for "
        "all while the database is away."
    ),
]


class UpstreamRow(BaseModel):
    """What was set of an upstream: its version is this one's."""

    name: str
    entry: Entry
    secrets: Annotated[list[str], Field(description="The fields that have a secret, such as `key`.")]
    enabled: bool
    position: Annotated[int, Field(description="Of several that have a model of the same name the first one is meant.")]
    created_at: AwareDatetime | None
    changed_at: AwareDatetime | None


class Upstream(UpstreamRow):
    """An upstream, as this worker sees it."""

    source: Source
    ready: bool
    details: dict[str, str]
    gauges: dict[str, float]
    models: list[str]
    fault: Annotated[str | None, Field(description="Why it can't be used here; null if it can.")]


class NewUpstream(KeyedEntry):
    """An upstream to be added: an entry of PROVIDERS_FILE, with its key. The key is never shown again."""

    enabled: bool = True


class Route(BaseModel):
    """A name that clients may ask for, and who answers it."""

    model: str
    targets: Annotated[list[str], Field(description="upstream/model, in the order in which they are asked.")]
    source: Annotated[
        Literal["settings", "database", "upstream"], Field(description="`upstream` for a model that is no route.")
    ]
    given: Annotated[
        list[str] | dict[str, float] | None, Field(description="The route as it was set; null for a model.")
    ]
    etag: Annotated[str | None, Field(description="The version of a route in the database, for `If-Match`.")]


class NewRoute(Body):
    """A route to be set."""

    targets: Annotated[
        list[str] | dict[str, float],
        Field(description="Models, upstream/model or other routes: a list in order, or an object with weights."),
    ]


class StoredRouteState(BaseModel):
    """A route of the database."""

    name: str
    targets: list[str] | dict[str, float]
    changed_at: AwareDatetime


class UpstreamEndpoints:
    """`/upstreams`, `/probe` and `/routes`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database
        self._upstreams = services.upstreams

    def router(self) -> APIRouter:
        """The routes."""
        one, route = "/upstreams/{name}", "/routes/{name:path}"
        return router_of(
            "upstreams",
            Endpoint("GET", "/upstreams", self.list_all, "List upstreams"),
            Endpoint("POST", "/upstreams", self.add, "Add an upstream", status=201, errors=(409,)),
            Endpoint("GET", one, self.get, "Read an upstream", errors=(404,)),
            Endpoint("PATCH", one, self.patch, "Change an upstream", errors=(404, 412)),
            Endpoint("DELETE", one, self.remove, "Remove an upstream", status=204, errors=(404, 412)),
            Endpoint("POST", f"{one}/probe", self.probe, "Try an upstream", errors=(404,)),
            Endpoint("POST", "/probe", self.probe_new, "Try an upstream before it is added"),
            Endpoint("GET", "/routes", self.routes, "List models and routes"),
            Endpoint("GET", "/routes/answer", self.answer, "Say who would answer a model"),
            Endpoint("PUT", route, self.set_route, "Set a route", errors=(412,)),
            Endpoint("DELETE", route, self.remove_route, "Remove a route", status=204, errors=(404, 412)),
        )

    async def list_all(self) -> Page[Upstream]:
        """Those of the settings, then those of the database, with their state as the worker sees it that answers.

        While the database is away, those that the worker uses, without what was set of them.
        """
        registry = self._services.registry
        own = [self._running(provider) for provider in registry.providers if provider.name in registry.own_names]
        try:
            others = [self._shown(opened) for opened in await read(self._database, self._upstreams.upstreams)]
        except KeyStoreUnavailable:
            others = [self._running(one) for one in registry.providers if one.name not in registry.own_names]
        return Page(data=[*own, *others])

    async def get(self, name: Name, response: Response) -> Upstream:
        """With the version of what was set as `ETag`, whatever its state."""
        registry = self._services.registry
        if name in registry.own_names:
            return self._running(next(one for one in registry.providers if one.name == name))
        opened = await read(self._database, lambda connection: self._found(connection, name))
        return with_etag(response, self._shown(opened), _row(opened))

    async def add(
        self, body: NewUpstream, actor: Writer, response: Response, idempotency_key: IdempotencyKey = None
    ) -> Upstream:
        """It answers requests on every worker within two seconds, after the upstreams that are there already."""
        document = {**document_of(body), **body.model_dump(include={"enabled"})}
        enabled = document.pop("enabled")

        def added(connection: Connection) -> Opened:
            def make() -> tuple[Opened, dict[str, object]]:
                opened = _told(lambda: self._upstreams.add(connection, actor, document, enabled=enabled))
                return opened, {"name": body.name}

            request = ["upstream.create", document, enabled]
            made, _ = once(connection, actor, idempotency_key, request, make)
            return made or self._found(connection, body.name)

        return await self._changed(added, response)

    async def patch(
        self,
        name: Name,
        body: Annotated[
            dict[str, Any],
            RequestBody(
                description="A JSON merge patch: fields of an entry, `key`, `enabled` and `position` (1 is the first). "
                "Absent fields stay, null takes away."
            ),
        ],
        actor: Writer,
        response: Response,
        if_match: IfMatch = None,
    ) -> Upstream:
        """Calls that have begun end as they were. Whoever gives it another address gives its secrets again."""

        def changed(connection: Connection) -> Opened:
            self._check(connection, name, if_match)
            return _told(lambda: self._upstreams.change(connection, actor, name, body))

        return await self._changed(changed, response)

    async def remove(self, name: Name, actor: Writer, if_match: IfMatch = None) -> None:
        """Calls that have begun end undisturbed. One that a route leads to can't be removed."""

        def removed(connection: Connection) -> None:
            self._check(connection, name, if_match)
            _told(lambda: self._upstreams.remove(connection, actor, name))

        await self._done(removed)

    async def probe(self, name: Name, _: Writer) -> Probe:
        """Connects, and fetches what a first request would need. Sends no message."""
        provider = next((one for one in self._services.registry.providers if one.name == name), None)
        if provider is None:
            raise NotFound(f"There is no upstream {name[:50]!r}, or it is disabled.", param="name")
        return await probed(provider)

    async def probe_new(self, body: NewUpstream, _: Writer) -> Probe:
        """Connects as the upstream would that was added so, and says which models it has. Nothing is kept."""
        try:
            return await tried(self._upstreams.catalog, body)
        except UpstreamFault as fault:
            raise InvalidRequest(str(fault), param=fault.param or None) from None

    async def routes(self) -> Page[Route]:
        """All names that clients may ask for."""
        stored: dict[str, StoredRoute] = {}
        with suppress(KeyStoreUnavailable):
            stored = {route.name: route for route in await read(self._database, list_routes)}
        registry, catalog = self._services.registry, self._upstreams.catalog
        names = dict.fromkeys([*registry.routes, *stored, *(name for name, _ in registry.model_ids())])
        return Page(data=[self._route(name, None if catalog.is_fixed(name) else stored.get(name)) for name in names])

    async def answer(
        self,
        model: Annotated[str, Query(min_length=1, max_length=256, description="The name that a client asks for.")],
        key: Annotated[str | None, Query(max_length=100, description="The id of the key that it asks with.")] = None,
    ) -> Answerers:
        """The upstreams in the order in which they would be asked now, with their state at the worker that answers."""
        return await who_answers(self._services, model, key)

    async def set_route(
        self, name: Name, body: NewRoute, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> StoredRouteState:
        """It holds on every worker within two seconds."""

        def put(connection: Connection) -> StoredRouteState:
            self._check_route(connection, name, if_match)
            return _route_state(_told(lambda: self._upstreams.set_route(connection, actor, name, body.targets)))

        return with_etag(response, await self._done(put))

    async def remove_route(self, name: Name, actor: Writer, if_match: IfMatch = None) -> None:
        """From then on it is the name of a model, or of nothing."""

        def removed(connection: Connection) -> None:
            self._check_route(connection, name, if_match)
            _told(lambda: self._upstreams.remove_route(connection, actor, name))

        await self._done(removed)

    async def _done(self, work: Callable[[Connection], T]) -> T:
        """Change something, and have this worker know what came of it."""
        result = await change(self._database, work)
        await self._services.take_in()
        return result

    async def _changed(self, work: Callable[[Connection], Opened], response: Response) -> Upstream:
        opened = await self._done(work)
        return with_etag(response, self._shown(opened), _row(opened))

    def _found(self, connection: Connection, name: str) -> Opened:
        return _told(lambda: self._upstreams.upstream(connection, name))

    def _check(self, connection: Connection, name: str, if_match: str | None) -> None:
        if if_match is not None:
            check_version(_row(self._found(connection, name)), if_match)

    def _check_route(self, connection: Connection, name: str, if_match: str | None) -> None:
        if if_match is None:
            return
        found = next((route for route in list_routes(connection) if route.name == name), None)
        if found is None:
            raise PreconditionFailed("There is no such route any more.")
        check_version(_route_state(found), if_match)

    def _running(self, provider: BaseProvider) -> Upstream:
        """An upstream that the worker uses, without what the database has of it, if anything."""
        return Upstream(
            name=provider.name,
            **_state(provider),
            source="settings" if provider.name in self._services.registry.own_names else "database",
            entry=None,
            secrets=[],
            enabled=True,
            position=0,
            created_at=None,
            changed_at=None,
            fault=None,
        )

    def _shown(self, opened: Opened) -> Upstream:
        name = opened.stored.name
        registry = self._services.registry
        running = next((one for one in registry.providers if one.name == name and name not in registry.own_names), None)
        fault = opened.fault or self._services.upstream_faults().get(name) or None
        return Upstream(**_row(opened).model_dump(), **_state(running), source="database", fault=fault)

    def _route(self, name: str, stored: StoredRoute | None) -> Route:
        registry = self._services.registry
        route = registry.routes.get(name)
        source: Literal["settings", "database", "upstream"] = "settings"
        if stored is not None or (route is not None and not registry.is_own_route(name)):
            source = "database"
        elif route is None:
            source = "upstream"
        given = stored.targets if stored is not None else None
        if given is None and route is not None:
            given = route.given
        return Route(
            model=name,
            targets=[f"{one.provider.name}/{one.spec.id}" for one in registry.answering(name)],
            source=source,
            given=dict(given) if isinstance(given, Mapping) else None if given is None else list(given),
            etag=None if stored is None else etag_of(_route_state(stored)),
        )


def _row(opened: Opened) -> UpstreamRow:
    stored = opened.stored
    return UpstreamRow(
        name=stored.name,
        entry=dict(stored.entry),
        secrets=opened.secrets or (["key"] if stored.secrets is not None else []),
        enabled=stored.enabled,
        position=stored.position,
        created_at=time_at(stored.created_at),
        changed_at=time_at(stored.changed_at),
    )


def _route_state(route: StoredRoute) -> StoredRouteState:
    targets = route.targets
    return StoredRouteState(
        name=route.name,
        targets=dict(targets) if isinstance(targets, Mapping) else list(targets),
        changed_at=time_at(route.changed_at),
    )


def _state(provider: BaseProvider | None) -> dict[str, Any]:
    if provider is None:
        return {"ready": False, "details": {}, "gauges": {}, "models": []}
    status = provider.status()
    return {
        "ready": status.ready,
        "details": dict(status.details),
        "gauges": dict(status.gauges),
        "models": [spec.id for spec in provider.models],
    }


def _told(work: Callable[[], T]) -> T:
    """Do something, and say in the API's words what was wrong with it."""
    try:
        return work()
    except NotStored as fault:
        raise NotFound(str(fault), param=fault.param or None) from None
    except UpstreamFault as fault:
        raise InvalidRequest(str(fault), param=fault.param or None) from None
