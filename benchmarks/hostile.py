"""What hostile inputs cost: CPU and memory at growing sizes, beside the bounds that hold for all of them.

    python -m benchmarks.hostile                 all rows; exits with 1 if a bound is broken
    python -m benchmarks.hostile --only schema   those whose names contain a word

An input of twice the size may cost at most 2.2 times as much, one of 8 KB at most 50 ms and 10 MB, and any at most
100 ms and 50 MB, not counting what the same bytes cost without what is hostile about them. The rows are in
`hostile_rows`. Each measurement runs in a process of its own, forked when everything has been used once; the least of
three counts.
"""

import argparse
import gc
import math
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_REPEATS = 3
_YOUNG_OBJECTS = 10_000
_MOST_SECONDS = 30
_MOST_BYTES = 6 * 2**30
_SMALL_SIZE, _SMALL_MS, _SMALL_MB = 8192, 50.0, 10.0
_MOST_MS, _MOST_MB, _MOST_GROWTH = 100.0, 50.0, 2.2
# Below this, what is measured is not the input.
_MEASURABLE_MS = 15.0
_LEAST_GROWTH = 1.5

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One input of a row.

    Args:
        size: Bytes of the input.
        work: What is measured.
        beside: What the same bytes cost without what is hostile about them, which is subtracted.
    """

    size: int
    work: Work
    beside: Work | None = None


@dataclass(frozen=True)
class Row:
    """A kind of hostile input.

    Args:
        name: Its part of the gateway, and what is hostile.
        case: Makes the input of a size.
        sizes: Growing, each twice the one before where growth is to be measured.
        most_ms, most_mb: Where more is allowed, which needs a reason in the row. None leaves a bound out.
        most_growth: Likewise.
    """

    name: str
    case: Callable[[int], Case]
    sizes: Sequence[int]
    most_ms: float | None = _MOST_MS
    most_mb: float | None = _MOST_MB
    most_growth: float = _MOST_GROWTH


@dataclass(frozen=True)
class Cost:
    """What a case took: milliseconds of CPU, and megabytes at its peak."""

    ms: float
    mb: float


def measured(work: Work) -> Cost:
    """What some work costs, in a process of its own. Infinitely much if it dies or takes far too long."""
    costs = [_once(work) for _ in range(_REPEATS)]
    return Cost(min(cost.ms for cost in costs), min(cost.mb for cost in costs))


def broken(row: Row, size: int, cost: Cost, growth: float | None) -> list[str]:
    """The bounds that a case breaks."""
    is_small = size <= _SMALL_SIZE
    most_ms = min(row.most_ms or float("inf"), _SMALL_MS) if is_small and row.most_ms == _MOST_MS else row.most_ms
    most_mb = min(row.most_mb or float("inf"), _SMALL_MB) if is_small and row.most_mb == _MOST_MB else row.most_mb
    found = []
    if most_ms is not None and cost.ms > most_ms:
        found.append(f"over {most_ms:g} ms")
    if most_mb is not None and cost.mb > most_mb:
        found.append(f"over {most_mb:g} MB")
    if growth is not None and growth > row.most_growth:
        found.append(f"grows x{growth:.1f}")
    return found


def run(rows: Sequence[Row]) -> bool:
    """Measure, and print the table; whether all bounds hold."""
    print(f"{'input':48} {'bytes':>10} {'CPU ms':>9} {'peak MB':>8} {'growth':>7}  bounds")
    all_hold = True
    for row in rows:
        first: tuple[int, Cost] | None = None
        for number in row.sizes:
            case = row.case(number)
            cost = _beside(case)
            growth = _growth(first, case.size, cost)
            faults = broken(row, case.size, cost, growth)
            if faults:  # once more: the machine may have been busy
                again = _beside(case)
                cost = Cost(min(cost.ms, again.ms), min(cost.mb, again.mb))
                growth = _growth(first, case.size, cost)
                faults = broken(row, case.size, cost, growth)
            all_hold = all_hold and not faults
            shown = "" if growth is None else f"x{growth:.1f}"
            verdict = ", ".join(faults).upper() or "ok"
            print(f"{row.name:48} {case.size:10} {cost.ms:9.1f} {cost.mb:8.1f} {shown:>7}  {verdict}", flush=True)
            if first is None and _MEASURABLE_MS <= cost.ms < float("inf"):
                first = (case.size, cost)
    return all_hold


def _beside(case: Case) -> Cost:
    """What a case costs, without what the same bytes cost anyway."""
    cost = measured(case.work)
    if case.beside is None:
        return cost
    beside = measured(case.beside)
    return Cost(max(cost.ms - beside.ms, 0.0), max(cost.mb - beside.mb, 0.0))


def _growth(first: tuple[int, Cost] | None, size: int, cost: Cost) -> float | None:
    """By how much the cost grows when the size doubles, on average since the first that could be measured."""
    if first is None or size < first[0] * _LEAST_GROWTH:
        return None
    return float((cost.ms / first[1].ms) ** (1 / math.log2(size / first[0])))


def _once(work: Work) -> Cost:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
            os.write(writing, pickle.dumps(_cost(work)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(told) if told else Cost(float("inf"), float("inf"))


def _cost(work: Work) -> Cost:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    gc.freeze()  # the server does both
    gc.set_threshold(_YOUNG_OBJECTS)
    before, started = _resident("VmRSS"), time.process_time()
    work()
    return Cost((time.process_time() - started) * 1000, (_resident("VmHWM") - before) / 1024)


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])


def main() -> int:
    """Measure the rows that the command line asks for."""
    from benchmarks.hostile_rows import rows  # noqa: PLC0415 - it needs this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose names contain this")
    wanted = parser.parse_args().only
    return 0 if run([row for row in rows() if wanted in row.name]) else 1


if __name__ == "__main__":
    sys.exit(main())
