"""Deadlines, and the limit on a stream's silence."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable

import pytest

from app.domain.errors import UpstreamTimeout
from app.providers.resilience.limits import Deadlines, SilenceLimit
from tests.loops import in_leaping_time


async def cancelled_twice(work: Awaitable[object]) -> asyncio.Task[object]:
    """A task that has been cancelled by a client's leaving while its own time limit was cancelling it."""

    async def run() -> object:
        return await work

    task = asyncio.create_task(run())
    while not task.cancelling():  # noqa: ASYNC110 - time leaps to the limit's timer
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    return task


async def stuck() -> None:
    """Hang, and take a moment to clean up when cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1)


async def stuck_in_silence() -> None:
    with SilenceLimit(10) as silence:
        silence.listen()
        await stuck()


def soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.mark.parametrize("limited", ["deadline", "silence"])
def test_a_timeout_leaves_no_cancellation_behind(limited: str) -> None:
    """The task that ran into it goes on as if it had never been cancelled."""

    async def work() -> None:
        with pytest.raises(UpstreamTimeout) as error:
            await (Deadlines().wait_for(stuck(), soon()) if limited == "deadline" else stuck_in_silence())
        assert isinstance(error.value.__cause__, asyncio.CancelledError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        async with asyncio.timeout(1000):
            await asyncio.sleep(100)

    in_leaping_time(work())


@pytest.mark.parametrize("limited", ["deadline", "silence"])
def test_a_client_s_cancellation_takes_precedence(limited: str) -> None:
    """A task that is cancelled from outside as well ends cancelled, not with a timeout that could be retried."""

    async def work() -> None:
        ours = Deadlines().wait_for(stuck(), soon()) if limited == "deadline" else stuck_in_silence()
        assert (await cancelled_twice(ours)).cancelled()

    in_leaping_time(work())


@pytest.mark.parametrize("limited", ["deadline", "silence"])
def test_a_cancellation_before_the_limit_is_none_of_its_business(limited: str) -> None:
    """Cancelled in time, a task ends cancelled."""

    async def work() -> None:
        ours = Deadlines().wait_for(stuck(), soon()) if limited == "deadline" else stuck_in_silence()
        task = asyncio.ensure_future(ours)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    in_leaping_time(work())


def test_a_task_that_was_cancelled_before_can_still_time_out() -> None:
    """What a cancelled task does to clean up has a deadline like everything else."""

    async def work() -> None:
        async def clean_up() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                try:
                    await Deadlines().wait_for(stuck(), soon())
                except UpstreamTimeout:
                    return "timed out"
            return "never cancelled"

        task = asyncio.create_task(clean_up())
        await asyncio.sleep(1)
        task.cancel()
        assert await task == "timed out"
        assert task.cancelling() == 1

    in_leaping_time(work())


@pytest.mark.parametrize("limited", ["deadline", "silence"])
def test_work_that_has_ended_is_not_cancelled_later(limited: str) -> None:
    """Neither limit reaches beyond the work that it is for."""

    async def work() -> None:
        if limited == "deadline":
            assert await Deadlines().wait_for(asyncio.sleep(1, "done"), soon()) == "done"
        else:
            with SilenceLimit(10) as silence:
                silence.listen()
                await asyncio.sleep(1)
        await asyncio.sleep(100)

    in_leaping_time(work())


def test_each_deadline_is_its_own() -> None:
    """Of calls that begin at the same time, each ends at its own deadline, and later ones have theirs as well."""

    async def work() -> None:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        ended: list[int] = []

        async def call(seconds: int) -> None:
            with pytest.raises(UpstreamTimeout):
                await deadlines.wait_for(asyncio.Event().wait(), begun + seconds)
            ended.append(seconds)
            assert seconds <= loop.time() - begun <= seconds + 0.2

        for _ in range(2):
            begun = loop.time()
            await asyncio.gather(*map(call, (30, 10, 20)))
            await asyncio.sleep(5)
        assert ended == [10, 20, 30] * 2

    in_leaping_time(work())


async def test_a_deadline_needs_a_task() -> None:
    """Outside a task there is nothing to cancel: that is a fault of the caller's, told at once."""
    loop = asyncio.get_running_loop()
    never: asyncio.Future[None] = loop.create_future()
    failed: asyncio.Future[BaseException] = loop.create_future()
    work = Deadlines().wait_for(never, 0.0)

    def run_outside_a_task() -> None:
        try:
            work.send(None)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.set_result(error)

    loop.call_soon(run_outside_a_task)
    assert isinstance(await failed, RuntimeError)


def test_silence_is_counted_from_the_last_part() -> None:
    """A stream that began long ago may still be silent for the whole of its time, and no longer."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with SilenceLimit(10) as silence:
            await asyncio.sleep(9)
            silence.listen()
            await asyncio.sleep(9)
            silence.heard()
        begun = loop.time()
        with pytest.raises(UpstreamTimeout, match="10 seconds"):
            await stuck_in_silence()
        assert loop.time() - begun == pytest.approx(11, abs=0.1)  # a second of which is for cleaning up

    in_leaping_time(work())


def test_without_a_limit_a_stream_may_be_silent() -> None:
    """None is no limit."""

    async def work() -> None:
        with SilenceLimit(None) as silence:
            silence.listen()
            await asyncio.sleep(100_000)

    in_leaping_time(work())


async def test_a_stream_that_has_ended_leaves_no_timer_behind() -> None:
    """A limit of hours doesn't keep a thousand finished streams in memory for hours."""

    class Limit(SilenceLimit):
        __slots__ = ("__weakref__",)

    with Limit(3600) as silence:
        silence.listen()
    ended = weakref.ref(silence)
    del silence
    gc.collect()
    assert ended() is None
