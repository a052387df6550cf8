"""Limits of keys, projects, upstreams and the gateway: which there are, how they stand, what others would have done."""

import time
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from app.api.admin.common import (
    Body,
    Cursor,
    Endpoint,
    IfMatch,
    Limit,
    Page,
    Writer,
    change,
    check_version,
    read,
    router_of,
    sliced,
    time_at,
    with_etag,
)
from app.api.admin.keys import limits_in
from app.api.admin.services import AdminServices
from app.domain.caller import ENVIRONMENT
from app.domain.durations import span
from app.domain.errors import InvalidRequest, NotFound
from app.domain.granting import LimitState, Scope
from app.domain.limits import Limit as UsageLimit
from app.domain.limits import texts_of
from app.limits.overview import LimitUse, figure, limits_of, use_of
from app.limits.replay import Replay
from app.limits.stored import StoredBook, change_limits
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.keys import key_of, list_projects
from app.storage.limits import states_of, stored_limits
from app.storage.spent import scope_of
from app.storage.upstreams import list_upstreams

ScopeName = Annotated[str, Path(description="`key:ID`, `project:NAME`, `upstream:NAME` or `gateway`.", max_length=200)]
_LONGEST_TRIAL_SECONDS = 8.0
_LONGEST_SPAN_SECONDS = 366 * 86_400


class LimitsOfScope(BaseModel):
    """The limits of a scope."""

    scope: str
    limits: str
    source: Annotated[
        Literal["database", "settings"], Field(description="`database` if they were set; `settings` if not.")
    ]


class ListedLimits(LimitsOfScope):
    """The limits of a scope, in the list of all."""

    exists: Annotated[
        bool, Field(description="False for an upstream that there is not, or not yet: nothing is limited by it.")
    ]


class Share(BaseModel):
    """What a worker has leased of a limit."""

    worker: str
    machine: str
    held: int | float


class LimitStanding(BaseModel):
    """How a limit stands. Dollars are in dollars."""

    limit: Annotated[str, Field(description="As people write it, such as `60 requests/minute`.")]
    measure: Annotated[
        str, Field(description="`requests`, `tokens`, `input tokens`, `output tokens`, `dollars` or `at once`.")
    ]
    window: Annotated[
        str | None, Field(description="`minute`, `month`, …; `total` for all time; null for calls at once.")
    ]
    models: Annotated[str | None, Field(description="The pattern of the models that it counts; null for all.")]
    amount: int | float
    used: int | float
    free: Annotated[int | float, Field(description="What no worker has leased.")]
    resets_in: Annotated[
        float | None, Field(description="Seconds until all of it is free again; null if no time does that.")
    ]
    resets_at: datetime | None
    workers: list[Share]


class ScopeStanding(LimitsOfScope):
    """The limits of a scope, and how they stand."""

    standing: list[LimitStanding]


class NewLimits(Body):
    """Limits to be set."""

    limits: Annotated[
        str, Field(max_length=4000, description="Such as `60 requests/minute, 5 at once`; `none` for no limits.")
    ]


class TrialRequest(NewLimits):
    """Limits to be tried."""

    last: Annotated[str, Field(max_length=20, description="On the calls of which time, such as `24h` or `30d`.")] = "7d"


class Refusals(BaseModel):
    """What one limit would have refused."""

    limit: str
    refused: int


class Stretch(BaseModel):
    """Five minutes in which requests would have been refused."""

    begins_at: datetime
    refused: int


class TrialResult(BaseModel):
    """What limits would have refused."""

    scope: str
    limits: str
    requests: int
    refused: int
    by_limit: list[Refusals]
    by_time: Annotated[list[Stretch], Field(description="The worst stretches, in the order of time.")]
    refused_then: Annotated[
        int, Field(description="Requests that limits had refused at the time, and that aren't counted.")
    ]
    complete_from: Annotated[
        datetime | None, Field(description="If older calls have been deleted, since when they are there.")
    ]
    stopped_at: Annotated[
        datetime | None, Field(description="If it took too long, up to which time calls were counted.")
    ]


class LimitEndpoints:
    """`/limits`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database

    def router(self) -> APIRouter:
        """The routes."""
        scope = "/limits/{scope:path}"
        return router_of(
            "limits",
            Endpoint("GET", "/limits", self.list_all, "List all limits"),
            Endpoint("POST", f"{scope}/try", self.try_out, "Say what limits would have refused", errors=(404,)),
            Endpoint("GET", scope, self.get, "Read limits, and how they stand", errors=(404,)),
            Endpoint("PUT", scope, self.put, "Set limits", errors=(404, 412)),
            Endpoint("DELETE", scope, self.unset, "Go back to the limits of the settings", errors=(404, 412)),
        )

    async def list_all(self, cursor: Cursor = None, limit: Limit = 50) -> Page[ListedLimits]:
        """Those that were set, and those of the settings where no others were. `key:*` is each other key."""
        stored, names = await read(self._database, lambda one: (stored_limits(one), self._upstream_names(one)))
        found = {name: ("settings", text) for name, text in self._services.fixed_limits.items()}
        found |= {scope.text: ("database", text) for scope, text in stored.items()}
        entries = [
            ListedLimits(scope=name, limits=text, source=source, exists=_exists(name, names))
            for name, (source, text) in found.items()
        ]
        return sliced(entries, lambda entry: (entry.scope,), cursor, limit, str)

    async def get(self, scope: ScopeName, response: Response) -> ScopeStanding:
        """With the version of the limits as `ETag`, whatever is used of them."""
        meant = _scope(scope)

        def found(connection: Connection) -> tuple[LimitsOfScope, list[LimitStanding]]:
            self._check(connection, meant)
            stored, epoch = self._book(connection), time.time()
            limits = limits_of(stored.book, [meant], epoch, self._services.zone)
            states = states_of(self._database, connection, limits)
            standing = [
                _standing(use_of(one, state, epoch), state, epoch) for one, state in zip(limits, states, strict=True)
            ]
            return _shown(stored, meant), standing

        shown, standing = await read(self._database, found)
        return with_etag(response, ScopeStanding(**shown.model_dump(), standing=standing), shown)

    async def put(
        self, scope: ScopeName, body: NewLimits, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> LimitsOfScope:
        """They count on every worker within two seconds. What was used before counts on."""
        shown = await self._set(_scope(scope), actor, limits_in(body.limits), if_match)
        return with_etag(response, shown)

    async def unset(
        self, scope: ScopeName, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> LimitsOfScope:
        """The answer says which these are."""
        shown = await self._set(_scope(scope), actor, None, if_match)
        return with_etag(response, shown)

    async def try_out(self, scope: ScopeName, body: TrialRequest) -> TrialResult:
        """Puts the calls in the ledger through limits. Changes nothing."""
        meant, limits = _scope(scope), limits_in(body.limits)
        until = now()
        since = until - round(_seconds(body.last) * 1000)
        services = self._services

        def begin(connection: Connection) -> Replay:
            self._check(connection, meant)
            return Replay(
                connection,
                meant,
                limits,
                services.zone,
                services.wait,
                since=since,
                until=until,
                seconds=_LONGEST_TRIAL_SECONDS,
            )

        replay = await read(self._database, begin)
        while not await read(self._database, replay.go_on):
            pass
        return _result(scope, limits, replay)

    async def _set(
        self, scope: Scope, actor: Writer, limits: tuple[UsageLimit, ...] | None, if_match: str | None
    ) -> LimitsOfScope:
        def set_them(connection: Connection) -> LimitsOfScope:
            self._check(connection, scope)
            check_version(_shown(self._book(connection), scope), if_match)
            change_limits(self._database, connection, actor, scope, limits)
            return _shown(self._book(connection), scope)

        return await change(self._database, set_them)

    def _book(self, connection: Connection) -> StoredBook:
        return StoredBook.read(connection, self._services.new_book())

    def _upstream_names(self, connection: Connection) -> set[str]:
        """The names of all upstreams."""
        return {*self._services.registry.own_names, *(upstream.name for upstream in list_upstreams(connection))}

    def _check(self, connection: Connection, scope: Scope) -> None:
        """Refuse the name of something that doesn't exist.

        Raises:
            NotFound: It doesn't.
        """
        services = self._services
        match scope.kind:
            case "key":
                is_known = scope.name in services.environment_keys or key_of(connection, scope.name) is not None
            case "project":
                is_known = scope.name == ENVIRONMENT or scope.name in list_projects(connection)
            case "upstream":
                is_known = scope.name in self._upstream_names(connection)
            case _:
                is_known = True
        # What is gone since its limits were set can be looked after, too.
        if not is_known and scope not in stored_limits(connection):
            raise NotFound(f"There is no {scope.kind} {scope.name[:60]!r}.", param="scope")


def _scope(name: str) -> Scope:
    """The scope of a name.

    Raises:
        InvalidRequest: It is none.
    """
    kind, colon, of = name.partition(":")
    if name == "gateway" or (kind in ("key", "project", "upstream") and colon and of):
        return scope_of(name)
    raise InvalidRequest("The scope must be key:ID, project:NAME, upstream:NAME or gateway.", param="scope")


def _exists(scope: str, upstreams: Collection[str]) -> bool:
    kind, _, name = scope.partition(":")
    return kind != "upstream" or name in upstreams


def _shown(stored: StoredBook, scope: Scope) -> LimitsOfScope:
    source: Literal["database", "settings"] = "database" if scope in stored.set_scopes else "settings"
    return LimitsOfScope(scope=scope.text, limits=texts_of(stored.book.of(scope)), source=source)


def _standing(use: LimitUse, state: LimitState, epoch: float) -> LimitStanding:
    limit = use.limit
    return LimitStanding(
        limit=limit.text,
        measure=limit.measure,
        window=limit.window or None,
        models=limit.pattern or None,
        amount=figure(limit.amount, limit.measure),
        used=figure(use.used, limit.measure),
        free=figure(use.free, limit.measure),
        resets_in=None if use.reset is None else round(use.reset, 3),
        resets_at=None if use.reset is None else time_at(round((epoch + use.reset) * 1000)),
        workers=[
            Share(worker=one.worker, machine=one.machine, held=figure(one.held, limit.measure))
            for one in state.holdings
        ],
    )


def _result(scope: str, limits: tuple[UsageLimit, ...], replay: Replay) -> TrialResult:
    trial = replay.trial
    worst = sorted(trial.by_time.most_common(100))
    return TrialResult(
        scope=scope,
        limits=texts_of(limits),
        requests=trial.calls,
        refused=trial.refused,
        by_limit=[Refusals(limit=limit.text, refused=trial.by_limit[limit]) for limit in limits],
        by_time=[Stretch(begins_at=time_at(at), refused=count) for at, count in worst],
        refused_then=replay.refused_before,
        complete_from=None if replay.deleted_until is None else time_at(replay.deleted_until),
        stopped_at=None if replay.stopped_at is None else time_at(replay.stopped_at),
    )


def _seconds(text: str) -> float:
    try:
        seconds = span(text)
    except ValueError as error:
        raise InvalidRequest(f"last: {error}.", param="last") from None
    if not 0 < seconds <= _LONGEST_SPAN_SECONDS:
        raise InvalidRequest("last must lie between 1s and 366d.", param="last")
    return seconds
