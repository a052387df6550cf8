"""What answers the playground's calls. Apart from the rest of the console, which is imported at its first request."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from app.api.dialects import DialectServices
from app.api.streaming.event_stream import StreamPolicy
from app.chat.service import ChatService
from app.domain.caller import Caller
from app.observe.metrics import Metrics


class Faults(Protocol):
    """What a demo's simulated upstreams may be let do wrong."""

    @property
    def names(self) -> Sequence[str]:
        """The faults there are; the console's texts have them as `simulated_…`."""
        ...

    def during(self, name: str, /) -> AbstractContextManager[None]:
        """Let a fault happen within a `with` block."""
        ...


class PlaygroundServices(Struct, frozen=True):
    """What answers the playground's calls: the same as those of clients.

    Args:
        chat: Answers calls.
        dialects: What requests are read with.
        streams: How streams are written.
        metrics: Told of streams.
        environment: The callers whose keys aren't in the database.
        faults: What may be let go wrong; None but in the demo.
    """

    chat: ChatService
    dialects: DialectServices
    streams: StreamPolicy
    metrics: Metrics
    environment: Sequence[Caller]
    faults: Faults | None = None
