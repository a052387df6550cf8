"""Blocking work in threads that can be abandoned: one that hangs delays neither the next nor the process's exit."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TooManyStuckThreads(Exception):
    """Too much abandoned work is still running to begin more."""


class AbandonableThreads:
    """Runs each piece of work in its own daemon thread. An executor would lose a thread to whatever hangs in it.

    Args:
        name: The threads' name.
        most_stuck: How many abandoned threads may still be running when more work begins.
    """

    def __init__(self, name: str, *, most_stuck: int) -> None:
        self._name = name
        self._most_stuck = most_stuck
        self._stuck: dict[threading.Thread, Callable[[], None]] = {}

    async def run(self, work: Callable[[], T], *, abort: Callable[[], None] = lambda: None) -> T:
        """Return or raise what `work` does.

        Args:
            work: What to run in the thread.
            abort: Makes `work` end soon, if it can. Called when the caller is cancelled, and again before each further
                piece of work while this one hangs.

        Raises:
            TooManyStuckThreads: The work was not begun.
        """
        self._abort_stuck()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        thread = threading.Thread(target=_work_for, args=(loop, done, work), name=self._name, daemon=True)
        thread.start()
        try:
            return await done
        except asyncio.CancelledError:
            self._stuck[thread] = abort
            abort()
            raise

    def _abort_stuck(self) -> None:
        self._stuck = {thread: abort for thread, abort in self._stuck.items() if thread.is_alive()}
        for abort in self._stuck.values():
            abort()
        if len(self._stuck) > self._most_stuck:
            raise TooManyStuckThreads


def _work_for(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[T]", work: Callable[[], T]) -> None:
    def tell(settle: Callable[..., None], outcome: object) -> None:
        if not done.done():
            settle(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            loop.call_soon_threadsafe(tell, done.set_exception, error)
        else:
            loop.call_soon_threadsafe(tell, done.set_result, result)
