"""What the chat service asks of a session store."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.domain.conversation import Session, SessionKey, SessionRecord


class SessionStore(Protocol):
    """Keeps sessions for a while, each under its caller's key."""

    def lock(self, key: SessionKey) -> AbstractAsyncContextManager[None]:
        """Hold the session for oneself: those who want the same one come after each other, in order.

        Raises:
            SessionBusy: On entering, if it didn't come free within a bounded time.
        """
        ...

    async def load(self, key: SessionKey) -> SessionRecord:
        """What is known under the key; an empty record if nothing is."""
        ...

    async def save(self, key: SessionKey, record: SessionRecord) -> None:
        """Keep a record; its time to live starts anew."""
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Forget the session; was there one?"""
        ...

    async def sessions_of(self, caller_id: str) -> Sequence[Session]:
        """All sessions of a caller, latest first."""
        ...

    @property
    def time_to_live(self) -> float:
        """Seconds that a session is kept after its last turn."""
        ...
