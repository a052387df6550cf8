"""Requests of one session in this process come after each other, in the order in which they came."""

import asyncio
from dataclasses import dataclass, field

from app.domain.conversation import SessionKey
from app.domain.errors import SessionBusy


@dataclass(slots=True)
class Line:
    """Those who want the same session. It is there only as long as there is somebody in it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Place:
    """A request's place in its line, taken at once; to be left in any case.

    Args:
        lines: All lines that there are at the moment.
        key: The session that is wanted.
    """

    def __init__(self, lines: dict[SessionKey, Line], key: SessionKey) -> None:
        self._lines = lines
        self._key = key
        self._line = lines.setdefault(key, Line())
        self._line.users += 1
        self._is_first = False
        self._left = False

    async def come_first(self, deadline: float) -> None:
        """Wait until all who came before have left, to a deadline in the event loop's time.

        Raises:
            SessionBusy: They didn't in time.
        """
        lock = self._line.lock
        try:
            if lock.locked():
                async with asyncio.timeout_at(deadline):
                    await lock.acquire()
            else:
                await lock.acquire()  # at once: nobody has to watch the time
        except TimeoutError as error:
            raise busy() from error
        self._is_first = True

    def leave(self) -> None:
        """Let the next one come first; once is enough."""
        if self._left:
            return
        self._left = True
        if self._is_first:
            self._line.lock.release()
        self._line.users -= 1
        if not self._line.users:
            del self._lines[self._key]


def busy() -> SessionBusy:
    """What is told to one who has waited for too long."""
    return SessionBusy("Another request of this session is still running.", retry_after=1.0)
