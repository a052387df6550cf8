"""Limits over several workers: what gets through is never more than a limit, and hardly less.

    .venv/bin/python -m benchmarks.limits [SCENARIO …]

Everything runs on this machine: a simulated site, a cluster of workers behind nginx, SQLite files and a PostgreSQL
server of the benchmark's own. Prints a row for each property, with its figure and its bound, and exits with 1 if a
bound is broken. All scenarios together take five minutes.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import uvloop
from sqlalchemy import text

from app.storage.rows import time_of
from benchmarks.bounds import Row, Scenario, chosen, run
from benchmarks.callers import Call, Cluster, Connection, cluster
from benchmarks.ledger import Place, place
from benchmarks.soak import KEY

_LONGEST = 300.0
_AMOUNT, _WINDOW = 100, 60.0
_FLOOD_SECONDS = 75.0
_ATTEMPTS_A_SECOND = 133
_AT_ONCE = 5
_CALLS = 1500
# A call begins some time before it is let in, and its worker's event loop may be busy then.
_JITTER = 0.2


async def flood(kind: str) -> list[Row]:
    """`100 requests/minute` under ten thousand attempts, nine of ten at one worker, which is killed; then a roll."""
    with place(kind) as at:
        async with cluster(at.folder, at.url, DEFAULT_LIMITS=f"{_AMOUNT} requests/minute", LIMIT_WAIT="0") as running:
            begin = time.monotonic()
            statuses = await _attempts(running, begin)
            seconds = time.monotonic() - begin
        times = [start for start, _ in _spans(at)]
    print(f"flood-{kind}: {len(statuses)} attempts, {statuses.count(200)} answered, {len(times)} let in", flush=True)
    rate = _AMOUNT / _WINDOW
    worst = max(
        place + 1 - first - _AMOUNT - rate * (times[place] - times[first])
        for first in range(len(times))
        for place in range(first, len(times))
    )
    unused = 100 * (1 - len(times) / (_AMOUNT + rate * seconds))
    return [
        Row(f"flood-{kind}: above capacity and refill, worst of all intervals", worst, "requests", _JITTER),
        Row(f"flood-{kind}: of it unused", unused, "%", 5),
        Row(f"flood-{kind}: neither answered nor refused", sum(s not in (200, 429) for s in statuses) / 100, "%", 5),
    ]


async def _attempts(running: Cluster, begin: float) -> list[int]:
    """Attempts at a steady pace, with a kill after 20 s and a roll of all workers after 40 s."""
    statuses: list[int] = []
    tasks: set[asyncio.Task[None]] = set()
    kill = asyncio.create_task(_later(20, lambda: os.kill(running.workers[0], signal.SIGKILL)))
    roll = asyncio.create_task(_later(40, lambda: os.kill(running.pid, signal.SIGHUP)))

    async def attempt(number: int) -> None:
        address = "127.0.7.1" if number % 10 else f"127.0.{number // 10 % 200 + 20}.1"
        try:
            connection = await Connection.to(running.port, address)
        except OSError:
            statuses.append(0)
            return
        call = await connection.call(KEY)
        connection.close()
        statuses.append(call.status)

    made = 0
    while (passed := time.monotonic() - begin) < _FLOOD_SECONDS:
        for number in range(made, int(passed * _ATTEMPTS_A_SECOND)):
            task = asyncio.create_task(attempt(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            made = number + 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks, kill, roll)
    return statuses


async def at_once(kind: str) -> list[Row]:
    """`5 at once` under calls of which a third is given up, with a worker that is killed."""
    with place(kind) as at:
        async with cluster(at.folder, at.url, DEFAULT_LIMITS=f"{_AT_ONCE} at once") as running:
            killed_at = [0.0]

            def kill() -> None:
                os.kill(running.workers[0], signal.SIGKILL)
                killed_at[0] = time.time()

            killing = asyncio.create_task(_later(8, kill))
            left = iter(range(_CALLS))
            counts: dict[str, int] = {}
            # Longer than what a client that leaves takes to be noticed there.
            await running.session.patch(running.site, json={"latency_s": 0.1})
            crowd = asyncio.gather(*[_caller(running, left, counts) for _ in range(24)])
            await killing
            all_used_after = 99.0
            while not crowd.done():
                seen = (await running.session.get(running.site)).json()["counters"]
                if seen["in_flight"] == _AT_ONCE and all_used_after == 99.0:
                    all_used_after = time.time() - killed_at[0]
                await asyncio.sleep(0.02)
            await crowd
            most = (await running.session.get(running.site)).json()["counters"]["max_in_flight"]
    print(f"at-once-{kind}: {counts}", flush=True)
    return [
        Row(f"at-once-{kind}: most at once, as the site has seen", most, "calls", _AT_ONCE),
        Row(f"at-once-{kind}: until all were in use after the kill", all_used_after, "s", 10),
    ]


async def _caller(running: Cluster, left: object, counts: dict[str, int]) -> None:
    for number in left:  # type: ignore[attr-defined]  # an iterator that all share
        try:
            connection = await Connection.to(running.port, f"127.0.{number % 250}.1")
        except OSError:
            await asyncio.sleep(0.05)
            continue
        call = asyncio.create_task(connection.call(KEY, stream=number % 2 == 0))
        if number % 3 == 0:
            await asyncio.sleep(random.uniform(0, 0.12))
            call.cancel()
            outcome = "given up"
        else:
            told: Call = await call
            outcome = str(told.status)
        counts[outcome] = counts.get(outcome, 0) + 1
        connection.close()


def _spans(at: Place) -> list[tuple[float, float]]:
    """When each call that was let in began and ended, in seconds since the epoch."""
    query = text("SELECT id, milliseconds FROM request WHERE outcome IS NULL OR outcome <> 'refused' ORDER BY id")
    with at.database.transaction(reads=True) as connection:
        rows = connection.execute(query).all()
    return [(time_of(row.id) / 1000, (time_of(row.id) + row.milliseconds) / 1000) for row in rows]


async def _later(seconds: float, act: Callable[[], object]) -> None:
    await asyncio.sleep(seconds)
    act()


_SCENARIOS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    f"{scenario.__name__.replace('_', '-')}-{kind}": partial(scenario, kind)
    for scenario in (flood, at_once)
    for kind in ("sqlite", "postgresql")
}


def main() -> int:
    """Run the scenarios, and return the exit status."""
    scenarios: dict[str, Scenario] = dict(_SCENARIOS)
    return uvloop.run(run(scenarios, chosen(__doc__, scenarios), longest=_LONGEST))


if __name__ == "__main__":
    sys.exit(main())
