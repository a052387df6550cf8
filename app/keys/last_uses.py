"""Notes when secrets were last used: beside the calls, once a minute, all in one go."""

import asyncio
from contextlib import suppress
from functools import partial

from app.storage.clock import now
from app.storage.database import Database, DatabaseAway
from app.storage.keys import note_last_uses

_EVERY_SECONDS = 60.0
_MINUTE = 60_000
# More in one transaction would keep look-ups waiting.
_BATCH = 500


class LastUses:
    """Carries into the database which secrets have opened.

    Args:
        database: Keeps it, to the minute.
        used: Digests of those that have opened; what is noted is taken out.
    """

    def __init__(self, database: Database, used: set[bytes]) -> None:
        self._database = database
        self._used = used
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to note."""
        self._task = asyncio.create_task(self._note_by_and_by())

    async def aclose(self, seconds: float) -> None:
        """Note what is left, for so long at most."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.note()

    async def note(self) -> None:
        """Note all uses as of now. While the database is away they wait for the next time."""
        at = now() // _MINUTE * _MINUTE
        digests = list(self._used)
        for begin in range(0, len(digests), _BATCH):
            batch = digests[begin : begin + _BATCH]
            try:
                texts = [digest.hex() for digest in batch]
                await self._database.run(partial(note_last_uses, self._database, digests=texts, at=at))
            except DatabaseAway:
                return
            self._used.difference_update(batch)

    async def _note_by_and_by(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self.note()
