"""`GET /v1/key`: what the caller's own key may do, what it has used, and what its limits leave."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.request import caller_of
from app.domain.caller import Caller
from app.limits.overview import LimitUse, figure

# A caller -> its sums of today, of this month and of all time, None where nothing is counted; and its limits.
ReadStanding = Callable[[Caller], Awaitable[tuple[Mapping[str, Mapping[str, int]] | None, Sequence[LimitUse]]]]
# A caller's id -> until when its texts are recorded, in milliseconds since the epoch; None if they aren't.
RecordedUntil = Callable[[str], int | None]


class KeyUsage(BaseModel):
    """Sums of a time that began at midnight UTC."""

    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_cache_written: int
    images: int = Field(description="Made.")
    audio_seconds: int = Field(description="Of what was listened to.")
    characters: int = Field(description="Spoken.")
    searches: int = Field(description="Rankings, as their vendor counts.")
    cost_usd: float


class KeyLimit(BaseModel):
    """A limit that holds for the key's calls. Dollars are in dollars."""

    scope: Literal["key", "project", "gateway"] = Field(description="Who shares it: this key, its project, or all.")
    limit: str = Field(description="As people write it, such as `60 requests/minute`.")
    measure: str = Field(description="`requests`, `tokens`, `input tokens`, `output tokens`, `dollars` or `at once`.")
    window: str | None = Field(description="`minute`, `month`, …; `total` for all time; null for calls at once.")
    models: str | None = Field(description="The pattern of the models that it counts; null for all.")
    amount: int | float
    used: int | float
    remaining: int | float
    resets_in: float | None = Field(description="Seconds until all of it is free again; null if no time does that.")
    resets_at: int | None = Field(description="The same as a time, in seconds since the epoch.")


class KeyInfo(BaseModel):
    """A key, as its holder may see it."""

    object: str = "key"
    id: str
    name: str
    project: str
    scopes: list[str]
    models: list[str] | None
    expires_at: int | None
    recorded_until: int | None = Field(
        description="If administrators record and may read what this key's calls say: until when, in seconds since the "
        "epoch."
    )
    usage: dict[str, KeyUsage] | None
    limits: list[KeyLimit]


def key_router(read_standing: ReadStanding, recorded_until: RecordedUntil) -> APIRouter:
    """The route, for every key."""
    router = APIRouter(tags=["keys"])

    @router.get("/v1/key", summary="What may this key do, what has it used, and what is left", response_model=KeyInfo)
    async def key(request: Request) -> KeyInfo:
        """`models` are patterns, null for all. `usage` is null if nothing is counted. `limits` are all that apply."""
        caller = caller_of(request)
        usage, limits = await read_standing(caller)
        until = recorded_until(caller.id)
        return KeyInfo(
            id=caller.id,
            name=caller.name,
            project=caller.project,
            scopes=sorted(caller.scopes),
            models=None if caller.models is None else list(caller.models),
            expires_at=None if caller.expires_at is None else int(caller.expires_at),
            recorded_until=None if until is None else math.ceil(until / 1000),
            usage=None if usage is None else {name: _usage(sums) for name, sums in usage.items()},
            limits=[_limit(use) for use in limits],
        )

    return router


def _usage(sums: Mapping[str, int]) -> KeyUsage:
    counts = {name: sums[name] for name in KeyUsage.model_fields if name != "cost_usd"}
    return KeyUsage(**counts, cost_usd=sums["cost"] / 1e9)


def _limit(use: LimitUse) -> KeyLimit:
    limit = use.limit
    return KeyLimit(
        scope=use.scope.kind,
        limit=limit.text,
        measure=limit.measure,
        window=limit.window or None,
        models=limit.pattern or None,
        amount=figure(limit.amount, limit.measure),
        used=figure(use.used, limit.measure),
        remaining=figure(use.remaining, limit.measure),
        resets_in=None if use.reset is None else round(use.reset, 3),
        resets_at=None if use.reset is None else math.ceil(time.time() + use.reset),
    )
