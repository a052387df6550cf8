"""Requests as they end. However many watch, a worker asks the database once a second."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from app.domain.errors import KeyStoreUnavailable
from app.storage.clock import now
from app.storage.database import Connection, Database, DatabaseAway
from app.storage.request_pages import RowFilter, end_of, page_of_rows, row_of, rows_ended_since, slow_rows
from app.storage.rows import id_at

# The name of the task that asks the database.
TASK = "feed of requests"
_PAUSE_SECONDS = 1.0
# A row's place is when its call began, but it comes when the call has ended: so far back is looked each time, and every
# few times further back, for calls that took longer.
_USUAL_MILLISECONDS, _LONG_MILLISECONDS = 15_000, 600_000
_TIMES_UNTIL_LONG = 5
# More in a second than anybody can read.
_MOST_AT_ONCE = 500
_QUIET_SECONDS = 15.0
_MOST_WAITING = 1000
# Who comes back after a pause gets what ended since, and what ended just before it: rows don't come in that order.
_SLACK_MILLISECONDS = 3_000
_LONGEST_ABSENCE_MILLISECONDS = 3_600_000

_Row = dict[str, Any]
_Queue = asyncio.Queue[_Row | None]


class Feed:
    """Tells everybody who watches what has come.

    Args:
        database: Where it comes from.
        is_stopping: Whether the process is about to end. Then nobody is told anything any more.
    """

    def __init__(self, database: Database, is_stopping: Callable[[], bool]) -> None:
        self._database = database
        self._is_stopping = is_stopping
        self._watchers: set[_Queue] = set()
        self._task: asyncio.Task[None] | None = None
        self._known: dict[int, None] = {}
        self._times = 0

    async def begin(self) -> None:
        """Look for the first time, if nobody watches yet. What comes from now on is told to whoever follows.

        Raises:
            KeyStoreUnavailable: The database can't be reached.
        """
        if self._is_running():
            return
        self._known, self._times = {}, 0
        try:
            await self._look()
        except DatabaseAway:
            raise KeyStoreUnavailable(
                "The database can't be reached at the moment; try again soon.", retry_after=2
            ) from None

    async def follow(self, after: int | None, wanted: RowFilter) -> AsyncGenerator[_Row | None, None]:
        """Rows as they come; None where nothing that is wanted has come for a while. `begin` comes before it.

        Args:
            after: The id of the last one that is known; None for those that come from now on.
            wanted: Which ones.
        """
        if self._is_stopping():
            return
        queue: _Queue = asyncio.Queue(_MOST_WAITING)
        self._watchers.add(queue)
        if not self._is_running():
            self._task = asyncio.create_task(self._run(), name=TASK)
        try:
            told = set()
            try:
                missed = [] if after is None else await self._missed(after, wanted)
            except DatabaseAway:
                return  # the client has got nothing yet, and comes back
            for row in missed:
                told.add(row["id"])
                yield row
            clock = asyncio.get_running_loop().time
            quiet_until = clock() + _QUIET_SECONDS
            while True:
                row_or_end: _Row | None = None
                try:
                    async with asyncio.timeout_at(quiet_until):
                        row_or_end = await queue.get()
                except TimeoutError:
                    yield None
                    quiet_until = clock() + _QUIET_SECONDS
                    continue
                if row_or_end is None:
                    return
                if row_or_end["id"] not in told and fits(row_or_end, wanted):
                    yield row_or_end
                    quiet_until = clock() + _QUIET_SECONDS
        finally:
            self._watchers.discard(queue)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _missed(self, after: int, wanted: RowFilter) -> list[_Row]:
        def missed(connection: Connection) -> list[_Row]:
            last = row_of(connection, after)
            longest = now() - _LONGEST_ABSENCE_MILLISECONDS
            ended = longest if last is None else max(end_of(last)[0] - _SLACK_MILLISECONDS, longest)
            since = ended - _LONG_MILLISECONDS
            rows = rows_ended_since(connection, ended, wanted, since=since, limit=_MOST_AT_ONCE)
            return [row for row in rows if row["id"] != after]

        return await self._database.report(missed)

    async def _run(self) -> None:
        try:
            while not self._is_stopping():
                await asyncio.sleep(_PAUSE_SECONDS)
                with suppress(DatabaseAway):
                    for row in sorted(await self._look(), key=end_of):
                        self._tell(row)
        finally:
            self._tell(None)

    async def _look(self) -> list[_Row]:
        """What has come since the last time."""
        is_deep = self._times % _TIMES_UNTIL_LONG == 0
        rows = await self._database.report(_newest_and_slow if is_deep else _newest)
        fresh = {row["id"]: row for row in rows if row["id"] not in self._known}
        # What was seen before stays known until it is too old to be read again.
        oldest = id_at(now() - 2 * _LONG_MILLISECONDS)
        self._known = {row_id: None for row_id in self._known if row_id >= oldest} | dict.fromkeys(fresh)
        self._times += 1
        return list(fresh.values())

    def _tell(self, row: _Row | None) -> None:
        for queue in self._watchers:
            if row is None and queue.full():
                queue.get_nowait()  # the end has to find its place
            # Who doesn't read misses some, and may ask for them by Last-Event-ID.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(row)


def fits(row: _Row, wanted: RowFilter) -> bool:
    """Whether a row is one of those that are looked for, whenever it was."""
    given = {
        "key_id": wanted.key_id,
        "project": wanted.project,
        "provider": wanted.provider,
        "outcome": wanted.outcome,
        "error": wanted.error,
        "session": wanted.session,
    }
    if any(value is not None and row[name] != value for name, value in given.items()):
        return False
    if wanted.model is not None and wanted.model != (row["served"] or row["model"]):
        return False
    return not wanted.trouble or row["outcome"] not in ("completed", "replayed")


def _newest(connection: Connection) -> list[_Row]:
    return page_of_rows(connection, RowFilter(since=now() - _USUAL_MILLISECONDS), limit=_MOST_AT_ONCE).rows


def _newest_and_slow(connection: Connection) -> list[_Row]:
    time = now()
    slow = slow_rows(
        connection,
        since=time - _LONG_MILLISECONDS,
        until=time - _USUAL_MILLISECONDS + 1,
        at_least=_USUAL_MILLISECONDS // 2,
        limit=_MOST_AT_ONCE,
    )
    return [*_newest(connection), *slow]
