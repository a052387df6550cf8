"""Requests of one session in this process come after each other, in the order in which they came."""

import asyncio
from collections import deque

from app.domain.conversation import SessionKey
from app.domain.errors import SessionBusy

Line = deque[asyncio.Future[None]]
"""Those who wait for a session that somebody else has. It is there only as long as somebody has it."""


class Place:
    """A request's place in its line, taken at once; to be left in any case.

    Args:
        lines: All lines that there are at the moment.
        key: The session that is wanted.
    """

    __slots__ = ("_key", "_left", "_lines", "_turn")

    def __init__(self, lines: dict[SessionKey, Line], key: SessionKey) -> None:
        self._lines = lines
        self._key = key
        self._left = False
        # Resolved when it is this one's turn. Who finds nobody there has nothing to wait for.
        self._turn: asyncio.Future[None] | None = None
        line = lines.get(key)
        if line is None:
            lines[key] = Line()
        else:
            self._turn = asyncio.get_running_loop().create_future()
            line.append(self._turn)

    @property
    def is_first(self) -> bool:
        """Have all who came before left?"""
        return self._turn is None or (self._turn.done() and not self._turn.cancelled())

    async def come_first(self, deadline: float) -> None:
        """Wait until all who came before have left, to a deadline in the event loop's time. Else the place is left.

        Raises:
            SessionBusy: They didn't in time.
        """
        if self._turn is None:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn
        except TimeoutError as error:
            self.leave()
            raise busy() from error
        except asyncio.CancelledError:
            self.leave()
            raise

    def leave(self) -> None:
        """Let the next one come first; once is enough."""
        if self._left:
            return
        self._left = True
        if self._turn is not None and (self._turn.cancel() or self._turn.cancelled()):
            return  # it wasn't first, and is passed over when its turn comes
        line = self._lines[self._key]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._lines[self._key]


def busy() -> SessionBusy:
    """What is told to one who has waited for too long."""
    return SessionBusy("Another request of this session is still running.", retry_after=1.0)
