"""What the chat service asks of a session store."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from app.domain.conversation import Session, SessionKey, SessionRecord


class HeldSession(Protocol):
    """A session that nobody else can change for the moment."""

    @property
    def record(self) -> SessionRecord:
        """What was known under the key when it was taken; an empty record if nothing was."""
        ...

    async def save(self, record: SessionRecord) -> None:
        """Keep a record in place of the old one, whose time to live starts anew, and let the session go.

        To be called at most once, and not together with `delete`.

        Raises:
            SessionStoreUnavailable: It could not be kept.
        """
        ...

    async def delete(self) -> bool:
        """Forget the session and let it go; was there one?

        Raises:
            SessionStoreUnavailable: Nobody knows.
        """
        ...


class SessionStore(Protocol):
    """Keeps sessions for a while, each under its caller's key."""

    def hold(self, key: SessionKey) -> AbstractAsyncContextManager[HeldSession]:
        """Take a session for oneself: those who want the same one come after each other, in order.

        Raises:
            SessionBusy: On entering, if it didn't come free within a bounded time.
            SessionStoreUnavailable: On entering, if the store can't be reached.
        """
        ...

    async def load(self, key: SessionKey) -> Session | None:
        """Look at a session without holding it.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    async def sessions_of(self, caller_id: str) -> Sequence[Session]:
        """All sessions of a caller, latest first.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    @property
    def time_to_live(self) -> float:
        """Seconds that a session is kept after its last turn."""
        ...

    async def start(self) -> None:
        """Open what is needed; must not depend on a server being up."""
        ...

    async def aclose(self) -> None:
        """Close everything that `start` opened."""
        ...

    def count(self) -> int | None:
        """How many sessions are kept; None if only a server would know."""
        ...

    def status(self) -> str:
        """`ready`, or in one word why not; for `/ready`."""
        ...


class SnapshotKey(Struct, frozen=True):
    """Where a snapshot is kept: no caller can reach another caller's by guessing its id."""

    caller_id: str
    snapshot_id: str


class SnapshotStore(Protocol):
    """Keeps what never changes, such as an answered response, for a while."""

    async def load(self, key: SnapshotKey) -> bytes | None:
        """What is kept under a key.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
        """
        ...

    async def save(self, key: SnapshotKey, data: bytes) -> None:
        """Keep something. What was unused for longest makes room for it.

        Raises:
            SessionStoreUnavailable: It could not be kept.
        """
        ...

    async def delete(self, key: SnapshotKey) -> bool:
        """Forget something; was there anything?

        Raises:
            SessionStoreUnavailable: Nobody knows.
        """
        ...
