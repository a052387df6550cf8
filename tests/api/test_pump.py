"""Events that are run ahead of their reader."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.api.pump import Pump
from app.chat.events import Event
from app.domain.chat import Delta
from app.domain.errors import InternalError
from tests.loops import in_leaping_time


async def _read(pump: Pump, deadline: float | None = None) -> str:
    event = await pump.next(deadline)
    assert isinstance(event, Delta)
    return event.text


def test_it_runs_only_so_far_ahead() -> None:
    """A reader that takes nothing lets no more than a bounded number of events pile up; none is lost or swapped."""
    made = []

    async def events() -> AsyncGenerator[Event, None]:
        for index in range(100):
            made.append(index)
            yield Delta(str(index))

    async def work() -> None:
        async with Pump(events()) as pump:
            await asyncio.sleep(1)
            assert 30 <= len(made) <= 40
            assert [await _read(pump) for _ in range(100)] == [str(index) for index in range(100)]
            with pytest.raises(InternalError):
                await pump.next(None)

    in_leaping_time(work())


def test_each_wait_has_its_own_end() -> None:
    """A wait ends at its deadline, whether the one before ended sooner or later, and the event comes all the same."""

    async def events() -> AsyncGenerator[Event, None]:
        for pause in (1, 20, 20):
            await asyncio.sleep(pause)
            yield Delta(str(pause))
        raise ValueError("no more")

    async def work() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with Pump(events()) as pump:
            assert await _read(pump, start + 10) == "1"
            for deadline in (5, 9, 19, 20.5):
                with pytest.raises(TimeoutError):
                    await pump.next(start + deadline)
                assert loop.time() == pytest.approx(start + deadline)
            assert await _read(pump, start + 30) == "20"
            assert await _read(pump) == "20"
            with pytest.raises(ValueError, match="no more"):
                await pump.next(start)
            assert loop.time() == pytest.approx(start + 41)

    in_leaping_time(work())


def test_leaving_ends_the_call_and_all_it_waits_for() -> None:
    """The generator is closed before the block is left, be it ahead or waiting."""
    closed = []

    async def events(pause: float) -> AsyncGenerator[Event, None]:
        try:
            while True:
                await asyncio.sleep(pause)
                yield Delta("x")
        finally:
            closed.append(pause)

    async def work() -> None:
        for pause in (0, 100):
            async with Pump(events(pause)):
                await asyncio.sleep(1)
            assert closed[-1] == pause
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_leaping_time(work())
