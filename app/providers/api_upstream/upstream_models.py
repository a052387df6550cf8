"""The models of an upstream: those that are configured, and those that it lists itself."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from app.domain.errors import GatewayError
from app.domain.prompt import PromptLimit
from app.providers.api_upstream.reply import Json
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import ModelSpec
from app.providers.bounds import bounds_of
from app.providers.services import services_named

_REFRESH_SECONDS = 3600.0
_RETRY_SECONDS = 60.0
_FETCH_SECONDS = 20.0
_MOST_MODELS = 5000
_LONGEST_ID = 256
# The names that upstreams give a model's context size in their lists.
_LISTS = ("data", "models", "items", "results", "result", "list")
_IDS = ("id", "model", "name", "slug", "model_id", "model_name")
_SIZES = ("context_length", "max_model_len", "context_window", "max_context_length", "max_input_tokens")


class UpstreamModels:
    """The current models, refreshed in the background if the upstream's own list is to be read.

    Args:
        upstream: Whose models they are; `discover` says whether its list is read.
        fetch: Reads that list.
    """

    def __init__(self, upstream: Upstream, fetch: Callable[[], Awaitable[object]]) -> None:
        self._upstream = upstream
        self._fetch = fetch
        self._models = upstream.models
        self._failure: str | None = None
        self._reason = ""
        self._refreshing: asyncio.Task[None] | None = None
        self._was_read = asyncio.Event()

    @property
    def models(self) -> Sequence[ModelSpec]:
        """The models that are known now."""
        return self._models

    @property
    def details(self) -> Mapping[str, str]:
        """For `/ready`: why the list could not be read the last time, if so."""
        if self._failure is None:
            return {}
        details = {"models_failure": self._failure}
        return {**details, "models_failure_reason": self._reason} if self._reason else details

    def start(self) -> None:
        """Start reading the list regularly, if it is to be read."""
        if self._upstream.discover:
            self._refreshing = asyncio.create_task(self._keep_fresh())

    async def first_read(self) -> None:
        """Wait until the list was read, or couldn't be, for the first time; not at all if it isn't to be read."""
        if self._refreshing is not None:
            await self._was_read.wait()

    async def aclose(self) -> None:
        """Stop reading the list."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def refresh(self) -> None:
        """Read the list now, if it is to be read.

        Raises:
            GatewayError: The list can't be read. The known models stay.
        """
        if not self._upstream.discover:
            return
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                document = await self._fetch()
        except TimeoutError:
            self._failure, self._reason = "upstream_timeout", "no answer in time"
        except GatewayError as error:
            self._failure, self._reason = error.code or error.type, error.reason
            raise
        else:
            self._failure = None
            self._models = (*self._upstream.models, *self._discovered(document))

    def spec(self, upstream_id: str, *, public_id: str, size: int | None = None, listed: bool = True) -> ModelSpec:
        """The spec of a model that isn't configured."""
        limit = self._upstream.default_limit
        services = services_named(upstream_id)
        return ModelSpec(
            id=public_id,
            upstream_id=upstream_id,
            prompt_limit=limit if size is None else PromptLimit(size, "tokens", limit.setting),
            owned_by=self._upstream.name,
            abilities=self._upstream.default_abilities,
            listed=listed,
            bounds=bounds_of(self._upstream.bounds, upstream_id),
            services=services,
            chats=services is None,
        )

    async def _keep_fresh(self) -> None:
        while True:
            with contextlib.suppress(GatewayError):
                await self.refresh()
            self._was_read.set()
            await asyncio.sleep(_RETRY_SECONDS if self._failure else _REFRESH_SECONDS)

    def _discovered(self, document: object) -> list[ModelSpec]:
        known = {spec.upstream_id for spec in self._upstream.models} | {spec.id for spec in self._upstream.models}
        found: dict[str, ModelSpec] = {}
        rows = [row for row in _rows(document)[:_MOST_MODELS] if isinstance(row, dict)]
        rows = rows or [{"id": row} for row in _rows(document)[:_MOST_MODELS]]
        key = next((name for name in _IDS if any(row.get(name) for row in rows)), "id")
        for row in rows:
            model_id = row.get(key)
            if isinstance(model_id, str) and _is_name(model_id) and model_id not in known:
                found[model_id] = self._spec_of(model_id, row)
        return list(found.values())

    def _spec_of(self, model_id: str, row: Json) -> ModelSpec:
        sizes = (row.get(name) for name in _SIZES)
        size = next((size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0), None)
        spec = self.spec(model_id, public_id=model_id, size=size)
        owner = row.get("owned_by")
        return replace(spec, owned_by=owner) if isinstance(owner, str) and _is_name(owner) else spec


def _rows(document: object) -> list[object]:
    """The rows of a list of models: a list, bare or under one of its usual names, of objects or of names."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return []
    for name in _LISTS:
        found = document.get(name)
        if isinstance(found, list):
            return found
        if isinstance(found, dict):
            # A list within, or rows under their names.
            rows = _rows(found)
            return rows or [{"id": key, **row} for key, row in found.items() if isinstance(row, dict)]
    return []


def _is_name(text: str) -> bool:
    """Whether a name can be shown. A lone surrogate in one would break the whole list of models."""
    return 0 < len(text) <= _LONGEST_ID and text.isprintable()
