"""Requests as they end. However many watch, a worker asks the database once a second."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from app.domain.errors import KeyStoreUnavailable
from app.storage.clock import now
from app.storage.database import Connection, Database, DatabaseAway
from app.storage.new_rows import LONG_MILLISECONDS, MOST_AT_ONCE, NewRows, Row, fits
from app.storage.request_pages import RowFilter, end_of, row_of, rows_ended_since

# The name of the task that asks the database.
TASK = "feed of requests"
_PAUSE_SECONDS = 1.0
_QUIET_SECONDS = 15.0
_MOST_WAITING = 1000
# Who comes back after a pause gets what ended since, and what ended just before it: rows don't come in that order.
_SLACK_MILLISECONDS = 3_000
_LONGEST_ABSENCE_MILLISECONDS = 3_600_000

_Queue = asyncio.Queue[Row | None]


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
        self._new = NewRows()

    async def begin(self) -> None:
        """Look for the first time, if nobody watches yet. What comes from now on is told to whoever follows.

        Raises:
            KeyStoreUnavailable: The database can't be reached.
        """
        if self._is_running():
            return
        self._new = NewRows()
        try:
            await self._look()
        except DatabaseAway:
            raise KeyStoreUnavailable(
                "The database can't be reached at the moment; try again soon.", retry_after=2
            ) from None

    async def follow(self, after: int | None, wanted: RowFilter) -> AsyncGenerator[Row | None, None]:
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
                row_or_end: Row | None = None
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

    async def _missed(self, after: int, wanted: RowFilter) -> list[Row]:
        def missed(connection: Connection) -> list[Row]:
            last = row_of(connection, after)
            longest = now() - _LONGEST_ABSENCE_MILLISECONDS
            ended = longest if last is None else max(end_of(last)[0] - _SLACK_MILLISECONDS, longest)
            since = ended - LONG_MILLISECONDS
            rows = rows_ended_since(connection, ended, wanted, since=since, limit=MOST_AT_ONCE)
            return [row for row in rows if row["id"] != after]

        return await self._database.report(missed)

    async def _run(self) -> None:
        try:
            while not self._is_stopping():
                await asyncio.sleep(_PAUSE_SECONDS)
                with suppress(DatabaseAway):
                    for row in await self._look():
                        self._tell(row)
        finally:
            self._tell(None)

    async def _look(self) -> list[Row]:
        return self._new.take(await self._database.report(self._new.look))

    def _tell(self, row: Row | None) -> None:
        for queue in self._watchers:
            if row is None and queue.full():
                queue.get_nowait()  # the end has to find its place
            # Who doesn't read misses some, and may ask for them by Last-Event-ID.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(row)
