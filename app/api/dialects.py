"""What a dialect brings to the gateway, and what it gets to build on."""

from collections.abc import Callable

from fastapi import APIRouter
from msgspec import Struct
from pydantic import BaseModel

from app.api.errors import OPENAI_ERRORS, ErrorForm
from app.api.streaming import StreamPolicy
from app.chat.service import ChatService
from app.observe.metrics import Metrics
from app.providers.registry import ProviderRegistry
from app.sessions.base import SnapshotStore


class Parts(Struct, frozen=True):
    """What the routes of every dialect are made of.

    Args:
        session_from_user: Does the request's `user` open a session?
        max_messages: The most messages in a request.
        snapshots: Where a dialect keeps what its clients may come back to.
        snapshot_max_characters: The most that is kept of one conversation.
    """

    service: ChatService
    registry: ProviderRegistry
    stream_policy: StreamPolicy
    session_from_user: bool
    max_messages: int
    metrics: Metrics
    snapshots: SnapshotStore
    snapshot_max_characters: int


class Dialect(Struct, frozen=True):
    """A way in which clients talk to the gateway.

    Args:
        router: Makes its routes. At addresses that dialects share, the one that is registered first is asked first.
        models: The wire types that its routes read by themselves, for the API's description.
        error_form: How its errors are written.
    """

    router: Callable[[Parts], APIRouter]
    models: tuple[type[BaseModel], ...]
    error_form: ErrorForm = OPENAI_ERRORS
