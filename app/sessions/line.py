"""Requests of one session within this process take turns, in the order of their arrival."""

import asyncio
from collections import deque

from app.domain.conversation import SessionKey
from app.domain.errors import SessionBusy

Line = deque[asyncio.Future[None]]
"""The requests that wait for a held session. The line exists only while the session is held."""


class Place:
    """A request's place in its session's line, taken on creation. `leave` must be called in any case.

    Args:
        lines: All current lines.
        key: The session.
    """

    __slots__ = ("_key", "_left", "_lines", "_turn")

    def __init__(self, lines: dict[SessionKey, Line], key: SessionKey) -> None:
        self._lines = lines
        self._key = key
        self._left = False
        # Resolved when this request's turn comes; None if the line was empty.
        self._turn: asyncio.Future[None] | None = None
        line = lines.get(key)
        if line is None:
            lines[key] = deque()
        else:
            self._turn = asyncio.get_running_loop().create_future()
            line.append(self._turn)

    @property
    def is_first(self) -> bool:
        """Whether all earlier requests have left."""
        return self._turn is None or (self._turn.done() and not self._turn.cancelled())

    async def come_first(self, deadline: float) -> None:
        """Wait until all earlier requests have left, or leave the line.

        Args:
            deadline: Until when to wait, in the event loop's time.

        Raises:
            SessionBusy: The deadline has passed.
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
        """Let the next request have its turn. Further calls do nothing."""
        if self._left:
            return
        self._left = True
        if self._turn is not None and (self._turn.cancel() or self._turn.cancelled()):
            return  # its turn had not come: it is skipped when it would
        line = self._lines[self._key]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._lines[self._key]


def busy() -> SessionBusy:
    """The error for a request that has waited too long."""
    return SessionBusy("Another request of this session is still running.", retry_after=1.0)
