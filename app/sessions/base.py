"""The protocols of session and snapshot stores."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from app.domain.conversation import Session, SessionKey, SessionRecord


class HeldSession(Protocol):
    """A session that nobody else can change until it is released."""

    @property
    def record(self) -> SessionRecord:
        """What was stored under the key when the session was taken; an empty record if nothing was."""
        ...

    async def save(self, record: SessionRecord) -> None:
        """Replace the record, restart its time to live, and release the session.

        Call it at most once, and not together with `delete`.

        Raises:
            SessionStoreUnavailable: The record could not be saved.
        """
        ...

    async def delete(self) -> bool:
        """Delete the session and release it. Returns whether there was one.

        Raises:
            SessionStoreUnavailable: It is unknown whether it was deleted.
        """
        ...


class SessionStore(Protocol):
    """Stores sessions for a limited time, each under its caller."""

    def hold(self, key: SessionKey) -> AbstractAsyncContextManager[HeldSession]:
        """Hold a session exclusively. Requests for the same session take turns, in the order of their arrival.

        Raises:
            SessionBusy: On entering, if the session wasn't released within a bounded time.
            SessionStoreUnavailable: On entering, if the store can't be reached.
        """
        ...

    async def load(self, key: SessionKey) -> Session | None:
        """Read a session without holding it.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    async def replace(self, key: SessionKey, record: SessionRecord) -> None:
        """Replace a record and restart its time to live, whoever holds the session: the last to save wins.

        Raises:
            SessionStoreUnavailable: The record could not be saved.
        """
        ...

    async def sessions_of(self, caller_id: str) -> Sequence[Session]:
        """All sessions of a caller, most recent first.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    @property
    def time_to_live(self) -> float:
        """Seconds that a session is kept after its last turn."""
        ...

    async def start(self) -> None:
        """Open resources. Must succeed while the server is down."""
        ...

    async def aclose(self) -> None:
        """Close everything that `start` opened."""
        ...

    def count(self) -> int | None:
        """The number of stored sessions; None if only a server would know."""
        ...

    def status(self) -> str:
        """`ready` or `unavailable`; for `/ready`."""
        ...

    def fault(self) -> str:
        """Why it is unavailable, in a few words for the operator; empty if it isn't."""
        ...

    async def check(self) -> str:
        """Write, read and delete something, and describe the store in a few words; for `doctor`.

        Raises:
            SessionStoreUnavailable: It can't be used; `fault` says why.
        """
        ...


class SnapshotKey(Struct, frozen=True):
    """Where a snapshot is stored: guessing an id never reaches another caller's snapshot."""

    caller_id: str
    snapshot_id: str


class SnapshotStore(Protocol):
    """Stores immutable documents, such as finished responses, for a limited time."""

    async def load(self, key: SnapshotKey) -> bytes | None:
        """The document under a key, or None.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    async def save(self, key: SnapshotKey, data: bytes) -> None:
        """Store a document. When there is no room, the oldest or least recently used goes first.

        Raises:
            SessionStoreUnavailable: It could not be stored.
        """
        ...

    async def delete(self, key: SnapshotKey) -> bool:
        """Delete a document. Returns whether there was one.

        Raises:
            SessionStoreUnavailable: It is unknown whether it was deleted.
        """
        ...
