"""Threads that can be given up."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.providers.threads import AbandonableThreads, TooManyStuckThreads
from tests.live import WAIT_SECONDS


class Work:
    """Hangs until it is told to end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()
        self.aborted = 0

    def __call__(self) -> str:
        self.begun.set()
        assert self.end.wait(WAIT_SECONDS)
        return "done"

    def abort(self) -> None:
        self.aborted += 1


@pytest.fixture
def work() -> Iterator[Work]:
    """Something that hangs, but not for longer than the test."""
    hanging = Work()
    yield hanging
    hanging.end.set()
    for thread in stuck():
        thread.join(WAIT_SECONDS)


@pytest.fixture
def threads() -> AbandonableThreads:
    """At most one piece of abandoned work beside a new one."""
    return AbandonableThreads("test-work", most_stuck=1)


async def abandon(threads: AbandonableThreads, work: Work) -> None:
    task = asyncio.create_task(threads.run(work, abort=work.abort))
    await asyncio.to_thread(work.begun.wait, WAIT_SECONDS)
    task.cancel()
    await asyncio.wait([task])


def stuck() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test-work"]


async def test_what_it_returns_or_raises_comes_back(threads: AbandonableThreads) -> None:
    """The result and the exception are those of the work."""
    assert await threads.run(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_work_that_hangs_keeps_none_from_running_up_to_a_limit(threads: AbandonableThreads, work: Work) -> None:
    """With one piece stuck there is room for more, with two there isn't, and there is again when they have ended."""
    await abandon(threads, work)
    assert await threads.run(lambda: 1) == 1
    await abandon(threads, work)
    with pytest.raises(TooManyStuckThreads):
        await threads.run(lambda: 1)
    assert len(stuck()) == 2
    work.end.set()
    for thread in stuck():
        await asyncio.to_thread(thread.join, WAIT_SECONDS)
    assert await threads.run(lambda: 1) == 1


async def test_what_nobody_waits_for_is_told_to_end_until_it_does(threads: AbandonableThreads, work: Work) -> None:
    """It may not have been in a state to end when it was told first, so every further piece of work tells it again."""
    await abandon(threads, work)
    assert work.aborted == 1
    await threads.run(lambda: 1)
    assert work.aborted == 2


async def test_work_that_hangs_does_not_hold_up_the_end_of_the_process(threads: AbandonableThreads, work: Work) -> None:
    """Its thread is one that Python doesn't wait for."""
    await abandon(threads, work)
    assert [thread.daemon for thread in stuck()] == [True]
