"""The responses that are kept: to be read again, and to be continued by `previous_response_id`."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from msgspec import Struct, convert
from pydantic import ValidationError

from app.api.responses.ids import response_of_item
from app.api.responses.items import Placed, items_of_kept
from app.api.responses.schemas import ItemReference
from app.domain.documents import UnreadableDocument, pack, unpack
from app.domain.errors import InvalidRequest, PreviousResponseNotFound, ResponseNotFound, SessionStoreUnavailable
from app.sessions.base import SnapshotKey, SnapshotStore

# Larger ones take more than half a millisecond to encode or decode: too long for the event loop.
_LARGE_BYTES = 16_000
_WARNING_SECONDS = 60.0

Document = dict[str, Any]


class KeptResponse(Struct, frozen=True):
    """A response, and the items that it answers: the whole conversation before it."""

    response: Document
    items: list[Document]

    @property
    def conversation(self) -> list[Document]:
        """The items, and those of the answer."""
        return [*self.items, *self.response["output"]]


class _StoredResponse(Struct, array_like=True):
    """The form in which it is stored."""

    response: Document
    items: list[Document]


class KeptResponses:
    """Keeps responses in a store of snapshots, each for its caller.

    Args:
        store: Where they are kept.
        max_characters: The most that is kept of one conversation; the oldest turns go first.
    """

    def __init__(self, store: SnapshotStore, *, max_characters: int) -> None:
        self._store = store
        self._max_characters = max_characters
        self._next_warning = 0.0

    async def load(self, caller_id: str, response_id: str) -> KeptResponse:
        """A response.

        Raises:
            ResponseNotFound: The caller has no such response, or it has expired.
            SessionStoreUnavailable: Nobody knows.
        """
        found = await self._find(caller_id, response_id)
        if found is None:
            raise ResponseNotFound(f"Response with id {response_id[:100]!r} not found.")
        return found

    async def conversation(self, caller_id: str, previous_id: str | None, items: Sequence[Placed]) -> list[Placed]:
        """The conversation that a request continues, and then its own items, references replaced by what they mean.

        Raises:
            InvalidRequest: The previous response, or an item that is referred to, isn't kept.
            SessionStoreUnavailable: Nobody knows.
        """
        earlier: list[Document] = []
        if previous_id is not None:
            previous = await self._find(caller_id, previous_id)
            if previous is None:
                raise _no_previous(previous_id)
            earlier = previous.conversation
        known = {item["id"]: item for item in earlier}
        own = [await self._resolved(caller_id, placed, known) for placed in items]
        try:
            return [*items_of_kept(earlier, "previous_response_id"), *own]
        except ValidationError:
            # Nothing that this version has written.
            self._warn("unknown items")
            raise _no_previous(previous_id) from None

    async def keep(self, caller_id: str, response: Document, items: list[Document]) -> bool:
        """Keep a response. It was answered all the same if it can't be kept: then its `store` must say so."""
        kept = KeptResponse(response, _within(items, self._max_characters))
        size = sum(_characters(item) for item in kept.conversation)
        data = await asyncio.to_thread(_encode, kept) if size > _LARGE_BYTES else _encode(kept)
        try:
            await self._store.save(SnapshotKey(caller_id, response["id"]), data)
        except SessionStoreUnavailable as error:
            structlog.get_logger("kimi.responses").warning("response.not_kept", reason=error.message)
            return False
        return True

    async def forget(self, caller_id: str, response_id: str) -> None:
        """Keep a response no longer.

        Raises:
            ResponseNotFound: There was none.
            SessionStoreUnavailable: Nobody knows.
        """
        if not await self._store.delete(SnapshotKey(caller_id, response_id)):
            raise ResponseNotFound(f"Response with id {response_id[:100]!r} not found.")

    async def _find(self, caller_id: str, response_id: str) -> KeptResponse | None:
        data = await self._store.load(SnapshotKey(caller_id, response_id))
        if data is None:
            return None
        try:
            return await asyncio.to_thread(_decode, data) if len(data) > _LARGE_BYTES else _decode(data)
        except UnreadableDocument as error:
            self._warn(str(error))
            return None

    def _warn(self, reason: str) -> None:
        """Log that something kept can't be read: now and then, however often somebody asks for it."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            structlog.get_logger("kimi.responses").warning("response.unreadable", reason=reason)

    async def _resolved(self, caller_id: str, placed: Placed, known: dict[str, Document]) -> Placed:
        item = placed.item
        if not isinstance(item, ItemReference):
            return placed
        if item.id not in known:
            response_id = response_of_item(item.id)
            found = await self._find(caller_id, response_id) if response_id else None
            known |= {entry["id"]: entry for entry in found.conversation} if found else {}
        try:
            return items_of_kept([known[item.id]], placed.place)[0]
        except (KeyError, ValidationError):
            raise InvalidRequest(
                f"Item with id {item.id[:100]!r} not found. Items are kept for a while, with their response.",
                param=f"{placed.place}.id",
            ) from None


def _no_previous(previous_id: str | None) -> PreviousResponseNotFound:
    return PreviousResponseNotFound(
        f"Previous response with id {(previous_id or '')[:100]!r} not found.", param="previous_response_id"
    )


def _within(items: list[Document], most: int) -> list[Document]:
    """The latest turns that fit, each from its user's message on; instructions among the items always stay."""
    begins = [index for index, item in enumerate(items) if item.get("role") == "user"]
    left = sum(_characters(item) for item in items)
    if left <= most or not begins:
        return items
    sizes = [_characters(item) for item in items]
    start = next((begin for begin in begins if sum(sizes[begin:]) <= most), begins[-1])
    instructions = [item for item in items[:start] if item.get("role") in ("system", "developer")]
    return [*instructions, *items[start:]]


def _characters(item: Document) -> int:
    """About as many as its texts have."""
    return sum(len(value) for value in _texts(item))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _texts(entry)]
    return [text for entry in value for text in _texts(entry)] if isinstance(value, list) else []


def _encode(kept: KeptResponse) -> bytes:
    return pack([kept.response, kept.items])


def _decode(data: bytes) -> KeptResponse:
    """What was encoded.

    Raises:
        UnreadableDocument: Another version wrote it, or it is damaged: then it is as good as not there.
    """
    document = unpack(data)
    try:
        kept = convert(document, _StoredResponse)
        for item in (*kept.items, *convert(kept.response["output"], list[Document])):
            convert(item["id"], str)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # Not chained: these errors quote what they stumbled over.
        raise UnreadableDocument(f"damaged ({type(error).__name__})") from None
    return KeptResponse(kept.response, kept.items)
