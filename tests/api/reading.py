"""What a request means to a dialect, without a gateway around it."""

import json
from collections.abc import Mapping
from typing import Any

from app.api.dialects import Dialect, DialectServices, Exchange
from app.api.request import RequestContext
from app.api.wire.addresses import ModelAddress
from app.domain.caller import Caller
from app.providers.registry import ProviderRegistry
from app.sessions.memory import MemorySnapshotStore

REQUEST_ID = "req_of_a_test"


def read(
    dialect: Dialect,
    request: bytes | Mapping[str, Any],
    headers: Mapping[bytes, bytes] | None = None,
    query: bytes = b"",
    **fields: Any,
) -> Exchange:
    """What a dialect makes of a request.

    Args:
        request: Its body, or what is in it.
        headers: By their names in lower case.
        query: Behind its address; if that names a model, it is "kimi".
        fields: Of the `DialectServices`, where they matter.
    """
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    context = RequestContext(headers or {}, REQUEST_ID, dialect.errors)
    context.caller = Caller("alice")
    context.asked = ModelAddress(dialect.path, "kimi", query)
    reading = dialect.read(body, context, services(**fields)).__await__()
    try:
        next(reading)
    except StopIteration as end:
        exchange: Exchange = end.value
        return exchange
    raise AssertionError("Nothing has to be waited for here.")


def services(**fields: Any) -> DialectServices:
    """Services with a default model and an empty store."""
    values: dict[str, Any] = {
        "registry": ProviderRegistry("default-model"),
        "session_from_user": True,
        "max_messages": 100,
        "snapshots": MemorySnapshotStore(max_snapshots=10, time_to_live=60),
        "snapshot_max_characters": 10_000,
        **fields,
    }
    return DialectServices(**values)
