"""The measurements. Each gives a flat record of numbers, whose names say their units."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks import load
from benchmarks.processes import Cores, Process, reference_seconds
from benchmarks.subjects import TURNS, Requests, Running, fetch

Record = dict[str, float]

STREAM_PIECES = 150
ANSWER_PIECES = 75
GAP = 0.02
_STREAM_SECONDS = STREAM_PIECES * GAP
_LARGEST_GAP_MS = 30.0
# Many calls come within so many seconds: all in one moment would measure how they queue to be accepted.
_WITHIN = 8.0
_REST_TRIES, _REST_SECONDS, _RESTING = 60, 0.3, 0.05


@dataclass(slots=True)
class Bench:
    """Where measurements take place.

    Args:
        mock_port: The upstream's port.
        mock: Its process.
        seconds: How long a measured window is.
    """

    cores: Cores
    mock_port: int
    mock: Process
    seconds: float

    def knobs(self, query: str) -> bytes:
        """Change the mock's knobs; its counters."""
        return fetch(self.mock_port, "GET", f"/_mock?{query}")


@dataclass(slots=True)
class Meter:
    """Reads CPU clocks when a window begins and when it ends."""

    bench: Bench
    subject: Running
    readings: list[tuple[float, float]] = field(default_factory=list)

    def mark(self) -> None:
        """Read them."""
        others = time.process_time() + self.bench.mock.cpu_seconds()
        self.readings.append((self.subject.cpu_seconds(), others))

    def record(self, window: load.Window) -> Record:
        """What was used within the window."""
        (own, others), (own_after, others_after) = self.readings
        return {
            "cpu_seconds": own_after - own,
            "subject_busy": (own_after - own) / window.seconds,
            # The core of load and mock: beyond 0.9 it may be what limits the figures.
            "load_busy": (others_after - others) / window.seconds,
            "refused": float(sum(times for status, times in window.tally.statuses.items() if status != 200)),
            "incomplete": float(window.tally.incomplete),
        }


async def settled(subject: Running) -> None:
    """Wait until the subject rests: some work off a backlog long after the last answer, which is not the next one's."""
    for _ in range(_REST_TRIES):
        before = subject.cpu_seconds()
        await asyncio.sleep(_REST_SECONDS)
        if subject.cpu_seconds() - before < _RESTING * _REST_SECONDS:
            return


async def beside_reference(bench: Bench, subject: Running, measured: Callable[[], Awaitable[Record]]) -> Record:
    """A measurement with the reference work before and after it, so that figures can be scaled."""
    await settled(subject)
    before = min(reference_seconds(bench.cores.subject) for _ in range(3))
    record = await measured()
    after = min(reference_seconds(bench.cores.subject) for _ in range(3))
    return record | {"reference_ms": (before + after) / 2 * 1000}


async def closed(bench: Bench, subject: Running, connections: int = 32, turns: int = TURNS) -> Record:
    """CPU for one request, and requests a second, with so many connections that never wait."""
    bench.knobs(f"delay=0&pieces={ANSWER_PIECES}")
    meter = Meter(bench, subject)
    window = await load.closed_loop(
        subject.port,
        Requests(subject.port, turns=turns),
        connections=connections,
        seconds=bench.seconds,
        warm_up=bench.seconds / 3,
        mark=meter.mark,
    )
    record = meter.record(window)
    done = max(1, window.tally.done)
    return record | {"cpu_ms_per_request": record["cpu_seconds"] / done * 1000, "per_second": done / window.seconds}


async def opened(bench: Bench, subject: Running, rate: float) -> Record:
    """Latencies at a fixed rate."""
    bench.knobs(f"delay=0&pieces={ANSWER_PIECES}")
    meter = Meter(bench, subject)
    window = await load.open_loop(
        subject.port, Requests(subject.port), rate=rate, seconds=bench.seconds, warm_up=1.0, mark=meter.mark
    )
    record = meter.record(window)
    return record | {
        "p50_ms": percentile(window.tally.latencies, 50) * 1000,
        "p99_ms": percentile(window.tally.latencies, 99) * 1000,
        "cpu_ms_per_request": record["cpu_seconds"] / max(1, window.tally.done) * 1000,
        "asked": rate * window.seconds,
        "done": float(window.tally.done),
    }


async def streams(bench: Bench, subject: Running, count: int) -> Record:
    """CPU for one event, gaps and the first event's time, with so many paced streams at once."""
    bench.knobs(f"delay=0&pieces={STREAM_PIECES}&gap={GAP}")
    meter = Meter(bench, subject)
    window = await load.paced_streams(
        subject.port,
        Requests(subject.port, stream=True, turns=1),
        streams=count,
        stream_seconds=_STREAM_SECONDS,
        seconds=bench.seconds,
        mark=meter.mark,
    )
    record, tally = meter.record(window), window.tally
    jitter = [abs(gap - GAP) for gap in tally.gaps]
    return record | {
        "cpu_us_per_event": record["cpu_seconds"] / max(1, tally.events) * 1e6,
        "events_per_second": tally.events / window.seconds,
        "first_p50_ms": percentile(tally.firsts, 50) * 1000,
        "first_p99_ms": percentile(tally.firsts, 99) * 1000,
        "gap_p50_ms": percentile(tally.gaps, 50) * 1000,
        "gap_p99_ms": percentile(tally.gaps, 99) * 1000,
        "jitter_p50_ms": percentile(jitter, 50) * 1000,
        "resident_mb": subject.resident_mb(),
    }


async def most_streams(bench: Bench, subject: Running, steps: Sequence[int]) -> Record:
    """The largest of the numbers of streams at which the 99th percentile of gaps is within 30 ms and none is lost.

    Each number is tried until it has passed or failed twice.
    """
    most: Record = {"streams": 0.0}
    for count in steps:
        results: list[bool] = []
        while results.count(True) < 2 and results.count(False) < 2:
            record = await streams(bench, subject, count)
            results.append(record["gap_p99_ms"] <= _LARGEST_GAP_MS and not record["incomplete"] + record["refused"])
            print(f"      {count} streams: p99 gap {record['gap_p99_ms']:.1f} ms, load {record['load_busy']:.2f}")
        if results.count(False) == 2:
            return most | {"failed_at": float(count), "failed_gap_p99_ms": record["gap_p99_ms"]}
        most = {"streams": float(count)} | record
    return most


@asynccontextmanager
async def _peaks(subject: Running) -> AsyncGenerator[Record, None]:
    """The highest memory and number of threads within the block."""
    peaks: Record = {"resident_mb": 0.0, "threads": 0.0}

    async def watch() -> None:
        while True:
            if subject.process:
                peaks["resident_mb"] = max(peaks["resident_mb"], subject.resident_mb())
                peaks["threads"] = max(peaks["threads"], float(subject.process.threads()))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(watch())
    try:
        yield peaks
    finally:
        task.cancel()


async def in_flight(bench: Bench, subject: Running, count: int) -> Record:
    """So many calls that all wait for the upstream at the same time."""
    await closed(bench, subject)
    threads = float(subject.process.threads()) if subject.process else 0.0
    before = subject.resident_mb()
    delay = 15
    bench.knobs(f"delay={delay}")
    waiting = [0.0]

    async def count_waiting() -> None:
        url = f"GET /_mock HTTP/1.1\r\nHost: 127.0.0.1:{bench.mock_port}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.mock_port)
        while True:
            writer.write(url)
            answer = await reader.readuntil(b"}")
            waiting.append(float(answer.rpartition(b'"in_flight":')[2].partition(b",")[0]))
            await asyncio.sleep(0.2)

    watcher = asyncio.create_task(count_waiting())
    async with _peaks(subject) as peaks:
        window = await load.burst(
            subject.port,
            Requests(subject.port, turns=1),
            count=count,
            within=_WITHIN,
            timeout=delay * 2 + 60.0,
        )
    watcher.cancel()
    bench.knobs("delay=0")
    return {
        "calls": float(count),
        "at_once": max(waiting),
        "answered": float(window.tally.statuses[200]),
        "threads_before": threads,
        "threads": peaks["threads"],
        "resident_mb_before": before,
        "resident_mb": peaks["resident_mb"],
        "kb_per_call": (peaks["resident_mb"] - before) * 1024 / count,
    }


async def all_streams(bench: Bench, subject: Running, count: int) -> Record:
    """So many streams at once, however long they take."""
    bench.knobs(f"delay=0&pieces={STREAM_PIECES}&gap={GAP}")
    async with _peaks(subject) as peaks:
        window = await load.burst(
            subject.port,
            Requests(subject.port, stream=True, turns=1),
            count=count,
            within=_WITHIN,
            timeout=300.0,
        )
    tally = window.tally
    return peaks | {
        "streams": float(count),
        "answered": float(tally.statuses[200]),
        "incomplete": float(tally.incomplete),
        "seconds": window.seconds,
        "gap_p99_ms": percentile(tally.gaps, 99) * 1000,
    }


async def growth(bench: Bench, subject: Running, requests: int) -> Record:
    """Memory before and after many requests; before means after enough of them to fill all caches."""
    bench.knobs(f"delay=0&pieces={ANSWER_PIECES}")
    await _requests(subject, max(20_000, requests // 10))
    before = subject.resident_mb()
    done = await _requests(subject, requests)
    return {"requests": float(done), "resident_mb_before": before, "grown_mb": subject.resident_mb() - before}


async def _requests(subject: Running, number: int) -> int:
    done = 0
    while done < number:
        window = await load.closed_loop(subject.port, Requests(subject.port), connections=32, seconds=5.0, warm_up=0.0)
        done += window.tally.done
    return done


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many per cent are not above; 0 if there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
