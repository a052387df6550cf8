"""Tells this worker's caches what others have changed in the database, within a heartbeat."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from app.storage.changes import changes_since, newest_change
from app.storage.database import Connection, Database, DatabaseAway

_log = structlog.get_logger("kimi.storage")

HEARTBEAT_SECONDS = 0.5


class Follower(Protocol):
    """A cache of something in the database."""

    def read(self, connection: Connection, changed: frozenset[str] | None) -> Any:
        """Read what is needed of what has changed, in the transaction that has found the changes.

        Args:
            changed: The subjects; None if it may be anything.
        """

    def take(self, changed: frozenset[str] | None, found: Any) -> None:
        """Forget what has changed, and take in what `read` has found; on the event loop's thread."""

    def away(self, seconds: float) -> None:
        """Nothing has been heard for so long."""


class ChangeFeed:
    """Follows the changes.

    Args:
        database: Where they are.

    Attributes:
        seen: The number of the newest change that all followers know; below 0 before the first look.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: Sequence[Follower] = ()
        self._heard = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.seen = -1

    def start(self, *followers: Follower) -> None:
        """Begin."""
        self._followers = followers
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def catch_up(self) -> None:
        """Tell what has changed since the last time.

        Raises:
            DatabaseAway: The database is away.
        """
        newest, changed, found = await self._database.run(self._read, reads=True)
        # Without a pause in between: whoever reads something older than `seen` reads it again.
        self.seen, self._heard = newest, time.monotonic()
        if changed is None or changed:
            for follower, what in zip(self._followers, found, strict=True):
                follower.take(changed, what)

    def _read(self, connection: Connection) -> tuple[int, frozenset[str] | None, list[Any]]:
        if self.seen < 0:
            newest, changed = newest_change(connection), None
        else:
            newest, subjects = changes_since(connection, self.seen)
            changed = None if subjects is None else frozenset(subjects)
        is_quiet = changed is not None and not changed
        return newest, changed, [] if is_quiet else [one.read(connection, changed) for one in self._followers]

    async def _follow(self) -> None:
        away = False
        while True:
            try:
                await self.catch_up()
                if away:
                    _log.info("database_back")
                away = False
            except DatabaseAway as error:
                if not away:
                    _log.warning("database_away", reason=str(error), meaning="known keys go on opening for a while")
                away = True
                for follower in self._followers:
                    follower.away(time.monotonic() - self._heard)
            await asyncio.sleep(HEARTBEAT_SECONDS)
