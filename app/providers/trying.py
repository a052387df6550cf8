"""Tries an upstream before it is added."""

from collections.abc import Sequence

from app.providers.base import ModelSpec
from app.providers.entries import KeyedEntry
from app.providers.stored import Catalog

# Whoever tries something waits for it.
_LONGEST_SECONDS = 15.0


async def try_upstream(catalog: Catalog, entry: KeyedEntry) -> Sequence[ModelSpec]:
    """Connect as an upstream would that was added so, and return the models that it would have.

    Raises:
        UpstreamFault: The entry lacks something.
        GatewayError: The upstream can't be used.
    """
    timeout = min(entry.timeout or _LONGEST_SECONDS, _LONGEST_SECONDS)
    provider = catalog.provider(entry.model_copy(update={"retries": 0, "timeout": timeout}))
    try:
        await provider.start()
        await provider.retire()  # what it would do in the background: `connect` does it now
        await provider.connect()
        return provider.models
    finally:
        await provider.aclose()
