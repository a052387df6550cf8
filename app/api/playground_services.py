"""What answers the playground's calls. Apart from the rest of the console, which is imported at its first request."""

from collections.abc import Sequence

from msgspec import Struct

from app.api.dialects import DialectServices
from app.api.streaming.event_stream import StreamPolicy
from app.chat.service import ChatService
from app.domain.caller import Caller
from app.observe.metrics import Metrics


class PlaygroundServices(Struct, frozen=True):
    """What answers the playground's calls: the same as those of clients.

    Args:
        chat: Answers calls.
        dialects: What requests are read with.
        streams: How streams are written.
        metrics: Told of streams.
        environment: The callers whose keys aren't in the database.
    """

    chat: ChatService
    dialects: DialectServices
    streams: StreamPolicy
    metrics: Metrics
    environment: Sequence[Caller]
