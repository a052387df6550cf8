"""A limit on concurrent calls to an upstream, with a bounded, fair queue."""

import asyncio
from collections import OrderedDict, deque

from app.domain.errors import GatewayOverloaded
from app.domain.spans import Trace, no_trace

# How long clients that were turned away are asked to wait, in seconds.
_RETRY_AFTER = 5


class Bulkhead:
    """Hands out slots. Callers in the queue are served in turn, so that none can starve the others.

    Args:
        slots: The most concurrent calls.
        queue_size: The most calls that may wait.
        queue_timeout: Seconds that a call may wait.
        trace: Opens a span around the waiting.
    """

    def __init__(self, *, slots: int, queue_size: int, queue_timeout: float, trace: Trace = no_trace) -> None:
        self._free = slots
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._trace = trace
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._queued = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._queued

    @property
    def free(self) -> int:
        """How many slots are free."""
        return self._free

    async def acquire(self, caller_id: str, *, at_most: float) -> None:
        """Take a slot, waiting for one if necessary. `release` must follow.

        Not a context manager, because that would make three calls of this one and `release`.

        Args:
            caller_id: Whose call it is, for fair shares.
            at_most: Seconds to wait; the queue's own limit may be shorter.

        Raises:
            GatewayOverloaded: The queue is full, or the wait was too long.
        """
        if self._free:  # so nobody waits: `release` hands slots on before it frees them
            self._free -= 1
        else:
            await self._wait(caller_id, min(at_most, self._queue_timeout))

    async def _wait(self, caller_id: str, seconds: float) -> None:
        if self._queued >= self._queue_size:
            raise GatewayOverloaded("Too many requests are waiting for the upstream.", retry_after=_RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller_id, deque()).append(turn)
        self._queued += 1
        try:
            with self._trace("queue"):
                async with asyncio.timeout(seconds):
                    await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot came at the same moment: it goes to the next call
            else:
                self._leave_queue(caller_id, turn)
            if isinstance(error, TimeoutError):
                raise GatewayOverloaded(
                    "The request waited too long in the queue for the upstream.", retry_after=_RETRY_AFTER
                ) from error
            raise

    def _leave_queue(self, caller_id: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(caller_id)
        if turns is None or turn not in turns:
            return  # `release` has skipped it already
        turns.remove(turn)
        self._queued -= 1
        if not turns:
            del self._waiting[caller_id]

    def release(self) -> None:
        """Give a slot back. It goes to the next caller in turn."""
        while self._waiting:
            caller_id, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self._queued -= 1
            if turns:
                self._waiting[caller_id] = turns  # to the end: the other callers come first
            if not turn.done():  # a call that has just been cancelled is still in the queue
                turn.set_result(None)
                return
        self._free += 1
