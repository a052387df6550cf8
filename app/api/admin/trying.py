"""Upstreams and models tried: whether an upstream answers, and who would answer a model."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.api.admin.common import read
from app.api.admin.services import AdminServices
from app.domain.caller import Caller
from app.domain.errors import GatewayError, InvalidRequest, UpstreamTimeout
from app.keys.keyring import caller_of
from app.providers.base import BaseProvider, ModelSpec
from app.providers.entries import KeyedEntry
from app.providers.stored import Catalog
from app.providers.trying import try_upstream
from app.storage.keys import key_of

# Whoever tries something waits for it: not for all the retries that an upstream may have.
_LONGEST_SECONDS = 25.0
_MOST_MODELS = 200


class Probe(BaseModel):
    """What came of a trial."""

    ok: bool
    code: str | None
    message: str | None
    models: Annotated[list[str], Field(description="Those that it serves, as far as is known; at most 200.")]


class Answerer(BaseModel):
    """Who would be asked."""

    upstream: str
    model: str
    ready: bool
    details: dict[str, str]


class Answerers(BaseModel):
    """Who would answer a model."""

    model: str
    kind: Annotated[
        Literal["route", "shared", "model", "nothing"],
        Field(description="`shared` for a route with weights, whose order is drawn anew for each request."),
    ]
    targets: Annotated[list[Answerer], Field(description="The second is asked if the first can't answer, and so on.")]
    message: Annotated[str | None, Field(description="Why nobody would.")]


async def probed(provider: BaseProvider) -> Probe:
    """Whether an upstream answers."""

    async def connect() -> Sequence[ModelSpec]:
        await provider.connect()
        return provider.models

    return await _outcome(connect())


async def tried(catalog: Catalog, entry: KeyedEntry) -> Probe:
    """Whether an upstream would answer that isn't there yet.

    Raises:
        UpstreamFault: The entry lacks something.
    """
    return await _outcome(try_upstream(catalog, entry))


async def _outcome(trial: Awaitable[Sequence[ModelSpec]]) -> Probe:
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            models = await trial
    except TimeoutError:
        message = f"It has not answered within {_LONGEST_SECONDS:g} seconds."
        return Probe(ok=False, code=UpstreamTimeout.code, message=message, models=[])
    except GatewayError as error:
        return Probe(ok=False, code=error.code or error.type, message=error.message, models=[])
    return Probe(ok=True, code=None, message=None, models=[spec.id for spec in models[:_MOST_MODELS]])


async def who_answers(services: AdminServices, model: str, key_id: str | None) -> Answerers:
    """Who would be asked for a model by a key, or by one that may use all models.

    Raises:
        InvalidRequest: There is no such key.
    """
    registry = services.registry
    caller = Caller("") if key_id is None else await _caller(services, key_id)
    try:
        targets = registry.resolve(model, caller=caller)
    except GatewayError as error:
        return Answerers(model=model, kind="nothing", targets=[], message=error.message)
    route = registry.routes.get(model)
    kind: Literal["route", "shared", "model"] = "model"
    if route is not None:
        kind = "route" if route.weights is None else "shared"
    shown = []
    for target in targets:
        status = target.provider.status()
        shown.append(
            Answerer(
                upstream=target.provider.name, model=target.spec.id, ready=status.ready, details=dict(status.details)
            )
        )
    return Answerers(model=model, kind=kind, targets=shown, message=None)


async def _caller(services: AdminServices, key_id: str) -> Caller:
    if key_id in services.environment_keys:
        return Caller(key_id)
    key = await read(services.database, lambda connection: key_of(connection, key_id))
    if key is None:
        raise InvalidRequest(f"There is no key {key_id[:50]!r}.", param="key")
    return caller_of(key)
