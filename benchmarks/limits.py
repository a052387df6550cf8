"""Limits over several workers: what gets through is never more than a limit, and hardly less.

    .venv/bin/python -m benchmarks.limits [SCENARIO …]

Everything runs on this machine: a simulated site, a cluster of workers behind nginx, SQLite files and a PostgreSQL
server of the benchmark's own. Prints a row for each property, with its figure and its bound, and exits with 1 if a
bound is broken. All scenarios together take ten minutes.
"""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from types import coroutine
from typing import Any

import uvloop
from msgspec import Struct
from sqlalchemy import text

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Usage
from app.domain.limits import read_limits
from app.domain.waits import unpacked
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Admission, Limiter, LimiterPolicy
from app.limits.shared import SharedStore
from app.storage.database import Database
from app.storage.rows import time_of
from benchmarks.bounds import Row, Scenario, chosen, run
from benchmarks.callers import Call, Cluster, Connection, cluster
from benchmarks.ledger import Place, place
from benchmarks.processes import free_port
from benchmarks.soak import KEY, process, until_up

_LONGEST = 600.0
_AMOUNT, _WINDOW = 100, 60.0
_FLOOD_SECONDS = 75.0
_ATTEMPTS_A_SECOND = 133
_AT_ONCE = 5
_CALLS = 10_000
_CLOCK_SECONDS = 30.0
# At each worker, once a second each.
_KEYS = 1000
_STEADY_SECONDS, _SETTLED_AFTER = 25.0, 5.0
# A call begins some time before it is let in, and its worker's event loop may be busy then.
_JITTER = 0.2


async def flood(kind: str) -> list[Row]:
    """`100 requests/minute` under ten thousand attempts, most at one worker; a kill, a roll, a worker more."""
    with place(kind) as at:
        settings: dict[str, Any] = {"DEFAULT_LIMITS": f"{_AMOUNT} requests/minute", "LIMIT_WAIT": "0"}
        async with cluster(at.folder, at.url, **settings) as running, _one_more(running, at, 50, **settings) as port:
            begin = time.monotonic()
            statuses = await _attempts(running, begin, port)
            seconds = time.monotonic() - begin
        times = _admissions(at)
    print(f"flood-{kind}: {len(statuses)} attempts, {statuses.count(200)} answered, {len(times)} let in", flush=True)
    return [
        *_bucket_rows(f"flood-{kind}", times, seconds),
        Row(f"flood-{kind}: neither answered nor refused", sum(s not in (200, 429) for s in statuses) / 100, "%", 5),
    ]


def _bucket_rows(name: str, times: Sequence[float], seconds: float) -> list[Row]:
    """How calls that began at these times, in their order, keep to the limit of the bucket."""
    rate = _AMOUNT / _WINDOW
    worst = max(
        place + 1 - first - _AMOUNT - rate * (times[place] - times[first])
        for first in range(len(times))
        for place in range(first, len(times))
    )
    unused = 100 * (1 - len(times) / (_AMOUNT + rate * seconds))
    return [
        Row(f"{name}: above capacity and refill, worst of all intervals", worst, "requests", _JITTER),
        Row(f"{name}: of it unused", unused, "%", 5),
    ]


@asynccontextmanager
async def _one_more(running: Cluster, at: Place, after: float, **settings: str) -> AsyncGenerator[list[int], None]:
    """A worker more, which begins after so many seconds; its port, as soon as it answers."""
    ports: list[int] = []
    over = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(after)
        port = free_port()
        environment = {
            "API_MASTER_KEY": KEY,
            "API_PORT": str(port),
            "CHAT_PAGE_URL": running.site.replace("/_simulator", "/chat/"),
            "DATABASE_URL": at.url,
            "JOURNAL_DIR": str(at.folder / "journal"),
            "TYPING_DELAY_SECONDS": "0",
            **settings,
        }
        with process("serve", **environment):
            await until_up(running.session, f"http://127.0.0.1:{port}/health")
            ports.append(port)
            await over.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        yield ports
        assert ports, "the worker more never came to answer"
        over.set()


async def _attempts(running: Cluster, begin: float, one_more: Sequence[int]) -> list[int]:
    """Attempts at a steady pace, with a kill after 20 s and a roll of all workers after 40 s."""
    statuses: list[int] = []
    tasks: set[asyncio.Task[None]] = set()
    kill = asyncio.create_task(_later(20, lambda: os.kill(running.workers[0], signal.SIGKILL)))
    roll = asyncio.create_task(_later(40, lambda: os.kill(running.pid, signal.SIGHUP)))

    async def attempt(number: int) -> None:
        address = "127.0.7.1" if number % 10 else f"127.0.{number // 10 % 200 + 20}.1"
        try:
            port = one_more[0] if one_more and number % 10 == 5 else running.port
            connection = await Connection.to(port, address)
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


async def clock(kind: str) -> list[Row]:
    """The same limit with three workers of which one believes that it is an hour later, and one an hour earlier."""
    with place(kind) as at:
        lead = "import os, time\n_now, _lead = time.time, {'1': 3600, '2': -3600}.get(os.environ.get('WORKER_ID'), 0)\n"
        (at.folder / "sitecustomize.py").write_text(lead + "time.time = lambda: _now() + _lead\n")
        limits = f"{_AMOUNT} requests/minute"
        async with cluster(
            at.folder, at.url, DEFAULT_LIMITS=limits, LIMIT_WAIT="0", PYTHONPATH=str(at.folder)
        ) as running:
            calls: list[Call] = []
            begin = time.monotonic()

            async def caller(number: int) -> None:
                while time.monotonic() < begin + _CLOCK_SECONDS:
                    connection = await Connection.to(running.port, f"127.0.{number * 7 % 250}.1")
                    calls.append(await connection.call(KEY))
                    connection.close()
                    await asyncio.sleep(0.1)

            await asyncio.gather(*[caller(number) for number in range(12)])
            seconds = time.monotonic() - begin
    # By the clients' clock: the ledger has the workers'.
    times = sorted(call.sent for call in calls if call.status == 200)
    print(f"clock-{kind}: {len(calls)} attempts, {len(times)} answered", flush=True)
    return _bucket_rows(f"clock-{kind}", times, seconds)


class Steady(Struct):
    """What a worker tells of a steady load."""

    waited: float
    microseconds: float


async def steady(kind: str) -> list[Row]:
    """1,000 keys with a request a second each at each of three workers: how many wait, and what admission costs."""
    with place(kind) as at:
        context = multiprocessing.get_context("spawn")
        with context.Pool(3) as pool:
            tellings = await asyncio.to_thread(pool.map, _steady_worker, [at.url] * 3)
    return [
        Row(f"steady-{kind}: of requests wait for the store", max(one.waited for one in tellings) * 100, "%", 1),
        Row(f"steady-{kind}: admitting and settling, median", median(one.microseconds for one in tellings), "µs", 10),
    ]


def _steady_worker(url: str) -> Steady:
    return uvloop.run(_steady_load(url))


async def _steady_load(url: str) -> Steady:
    database = Database(url)
    database.prepared = True
    leases = Leases(SharedStore(database), workers=3)
    limiter = Limiter(LimitBook(read_limits("600 requests/minute")), leases, LimiterPolicy())
    callers = [Caller(f"k{number}", "", "") for number in range(_KEYS)]
    call, usage = ChatCall("kimi", ()), Usage(10, 10)
    waited, times, late = 0, [], []
    begin = time.monotonic()
    made = 0
    while (passed := time.monotonic() - begin) < _STEADY_SECONDS:
        for number in range(made, int(passed * _KEYS)):
            start = time.perf_counter()
            admitting = limiter.admit(call, callers[number % _KEYS], "up", "kimi")
            try:
                first = admitting.send(None)
            except StopIteration as done:
                done.value.settle(usage, counts=True)
                if passed > _SETTLED_AFTER:
                    times.append(time.perf_counter() - start)
            else:
                late.append(asyncio.create_task(_finished(_resumed(admitting, first), usage)))
                waited += passed > _SETTLED_AFTER
            made = number + 1
        # Ten at a time: a worker that has just read a request isn't as cold as one that has slept.
        await asyncio.sleep(0.01)
    await asyncio.gather(*late)
    await leases.aclose()
    database.close()
    return Steady(waited / (waited + len(times)), median(times) * 1e6)


@coroutine
def _resumed(waiting: Any, first: object) -> Generator[Any, Any, Any]:
    """Go on with something that has begun, and waits for `first`."""
    awaited = first
    while True:
        told = yield awaited
        try:
            awaited = waiting.send(told)
        except StopIteration as done:
            return done.value


async def _finished(admitting: Awaitable[Admission], usage: Usage) -> None:
    (await admitting).settle(usage, counts=True)


async def at_once(kind: str) -> list[Row]:
    """`5 at once` in all dialects, a third of the calls given up, an upstream that fails, a worker that is killed."""
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
            failing = asyncio.create_task(_fail_at_times(running))
            crowd = asyncio.gather(*[_caller(running, left, counts) for _ in range(24)])
            await killing
            all_used_after, killed_is_missed = 99.0, False
            while not crowd.done():
                in_flight = (await running.session.get(running.site)).json()["counters"]["in_flight"]
                # The site may take a moment to learn who is gone.
                killed_is_missed = killed_is_missed or in_flight < _AT_ONCE
                if killed_is_missed and in_flight == _AT_ONCE and all_used_after == 99.0:
                    all_used_after = time.time() - killed_at[0]
                await asyncio.sleep(0.02)
            await crowd
            assert not failing.done(), "the site wasn't made to fail"
            failing.cancel()
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
        dialect = ("chat", "completions", "responses", "anthropic")[number // 2 % 4]
        call = asyncio.create_task(connection.call(KEY, stream=number % 2 == 0, dialect=dialect))
        if number % 3 == 0:
            await asyncio.sleep(random.uniform(0, 0.12))
            call.cancel()
            outcome = "given up"
        else:
            told: Call = await call
            outcome = str(told.status)
        counts[outcome] = counts.get(outcome, 0) + 1
        connection.close()


async def _fail_at_times(running: Cluster) -> None:
    while True:
        await asyncio.sleep(1)
        failure = random.choice(("server_error", "html", "truncated_json"))
        await running.session.patch(running.site, json={"failure": failure, "failure_times": 2})


def _admissions(at: Place) -> list[float]:
    """When each call was let in, in seconds since the epoch: it may have waited for the store's answer."""
    query = text("SELECT id, waits FROM request WHERE outcome IS NULL OR outcome <> 'refused'")
    with at.database.transaction(reads=True) as connection:
        rows = connection.execute(query).all()
    return sorted(time_of(row.id) / 1000 + unpacked(row.waits).get("limits", 0) / 1000 for row in rows)


async def _later(seconds: float, act: Callable[[], object]) -> None:
    await asyncio.sleep(seconds)
    act()


_SCENARIOS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    f"{scenario.__name__.replace('_', '-')}-{kind}": partial(scenario, kind)
    for scenario in (flood, clock, at_once, steady)
    for kind in ("sqlite", "postgresql")
}


def main() -> int:
    """Run the scenarios, and return the exit status."""
    scenarios: dict[str, Scenario] = dict(_SCENARIOS)
    return uvloop.run(run(scenarios, chosen(__doc__, scenarios), longest=_LONGEST))


if __name__ == "__main__":
    sys.exit(main())
