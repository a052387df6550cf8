"""Requests as they end. However many watch, a worker asks the database once a second."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from app.domain.errors import KeyStoreUnavailable
from app.storage.clock import now
from app.storage.database import Connection, Database, DatabaseAway
from app.storage.request_pages import RowFilter, page_of_rows, rows_after, slow_rows
from app.storage.rows import id_at

_PAUSE_SECONDS = 1.0
# A row's place is when its call began, but it comes when the call has ended: so far back is looked each time, and every
# few times further back, for calls that took longer.
_USUAL_MILLISECONDS, _LONG_MILLISECONDS = 15_000, 600_000
_TIMES_UNTIL_LONG = 5
# More in a second than anybody can read.
_MOST_AT_ONCE = 500
_QUIET_SECONDS = 15.0
_MOST_WAITING = 1000


class Feed:
    """Tells everybody who watches what has come.

    Args:
        database: Where it comes from.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, after: int | None, wanted: RowFilter) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Rows as they come; None where nothing has come for a while.

        Args:
            after: The id of the last one that is known; None for those that come from now on.
            wanted: Which ones.

        Raises:
            KeyStoreUnavailable: The database can't be reached.
        """
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self._watchers.add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            for row in () if after is None else await self._missed(after, wanted):
                yield row
            while True:
                came: dict[str, Any] | None = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(_QUIET_SECONDS):
                        came = await queue.get()
                if came is None or fits(came, wanted):
                    yield came
        finally:
            self._watchers.discard(queue)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _missed(self, after: int, wanted: RowFilter) -> list[dict[str, Any]]:
        try:
            return await self._database.report(
                lambda connection: rows_after(connection, after, wanted, limit=_MOST_AT_ONCE)
            )
        except DatabaseAway:
            raise KeyStoreUnavailable("The database can't be reached at the moment; try again soon.") from None

    async def _run(self) -> None:
        known: dict[int, None] | None = None
        times = 0
        while True:
            with suppress(DatabaseAway):
                is_deep = times % _TIMES_UNTIL_LONG == 0
                rows = await self._database.report(_newest_and_slow if is_deep else _newest)
                fresh = [] if known is None else [row for row in rows if row["id"] not in known]
                # What was seen before stays known until it is too old to be read again.
                oldest = id_at(now() - _LONG_MILLISECONDS)
                known = {row_id: None for row_id in known or () if row_id >= oldest}
                known.update(dict.fromkeys([row["id"] for row in rows]))
                for row in sorted(fresh, key=_id):
                    self._tell(row)
            times += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    def _tell(self, row: dict[str, Any]) -> None:
        for queue in self._watchers:
            # Who doesn't read misses some, and may ask for them by Last-Event-ID.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(row)


def fits(row: dict[str, Any], wanted: RowFilter) -> bool:
    """Whether a row is one of those that are looked for."""
    given = {
        "key_id": wanted.key_id,
        "project": wanted.project,
        "provider": wanted.provider,
        "outcome": wanted.outcome,
        "error": wanted.error,
    }
    if any(value is not None and row[name] != value for name, value in given.items()):
        return False
    if wanted.model is not None and wanted.model not in (row["model"], row["served"]):
        return False
    return not wanted.trouble or row["outcome"] not in ("completed", "replayed")


def _newest(connection: Connection) -> list[dict[str, Any]]:
    return page_of_rows(connection, RowFilter(since=now() - _USUAL_MILLISECONDS), limit=_MOST_AT_ONCE).rows


def _newest_and_slow(connection: Connection) -> list[dict[str, Any]]:
    time = now()
    slow = slow_rows(
        connection,
        since=time - _LONG_MILLISECONDS,
        until=time - _USUAL_MILLISECONDS + 1,
        at_least=_USUAL_MILLISECONDS // 2,
        limit=_MOST_AT_ONCE,
    )
    return [*_newest(connection), *slow]


def _id(row: dict[str, Any]) -> int:
    return int(row["id"])
