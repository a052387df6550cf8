"""`GET /v1/key`: what the caller's own key may do, and what it has used."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.request import caller_of

# The caller's id -> its sums of today, of this month and of all time.
ReadUsage = Callable[[str], Awaitable[Mapping[str, Mapping[str, int]]]]


class KeyUsage(BaseModel):
    """Sums of a time that began at midnight UTC."""

    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_usd: float


class KeyInfo(BaseModel):
    """A key, as its holder may see it."""

    object: str = "key"
    id: str
    name: str
    project: str
    scopes: list[str]
    models: list[str] | None
    expires_at: int | None
    usage: dict[str, KeyUsage] | None


def key_router(read_usage: ReadUsage | None) -> APIRouter:
    """The route, for every key.

    Args:
        read_usage: None where nothing is counted.
    """
    router = APIRouter(tags=["keys"])

    @router.get("/v1/key", summary="What may this key do, and what has it used", response_model=KeyInfo)
    async def key(request: Request) -> KeyInfo:
        """`models` are patterns, null for all; `usage` is null if the gateway counts nothing."""
        caller = caller_of(request)
        usage = None if read_usage is None else await read_usage(caller.id)
        return KeyInfo(
            id=caller.id,
            name=caller.name,
            project=caller.project,
            scopes=sorted(caller.scopes),
            models=None if caller.models is None else list(caller.models),
            expires_at=None if caller.expires_at is None else int(caller.expires_at),
            usage=None if usage is None else {name: _usage(sums) for name, sums in usage.items()},
        )

    return router


def _usage(sums: Mapping[str, int]) -> KeyUsage:
    return KeyUsage(
        requests=sums["requests"],
        tokens_in=sums["tokens_in"],
        tokens_out=sums["tokens_out"],
        tokens_cached=sums["tokens_cached"],
        cost_usd=sums["cost"] / 1e9,
    )
