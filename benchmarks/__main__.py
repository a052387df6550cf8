"""Measures the gateway beside what it is compared with, and writes tables.

    ./dev bench                     everything: about half an hour
    ./dev bench --quick             one short round of each: a few minutes, rough figures
    ./dev bench --only floor,gateway --measure closed,streams

The subject has one core for itself; the mock upstream and the load have the other one. Rounds are short and take turns,
and beside each one a fixed piece of work says how fast the machine is at the moment: CPU figures are scaled by it.
Nothing speaks to any address outside this machine, but pip, which fetches the subjects' packages once.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks import measure
from benchmarks.measure import ANSWER_PIECES, Bench, Record
from benchmarks.processes import ROOT, cores, free_port, reference_seconds
from benchmarks.report import Results, Tables, render
from benchmarks.subjects import MANY_CALLS, SUBJECTS, Place, Running, Subject, check, mock, running, version

TAKE_TURNS = ("closed", "closed-plain", "open-50", "open-200", "streams-50", "most-streams")
MEASUREMENTS = ("start", *TAKE_TURNS, "in-flight", "all-streams", "growth", "micro")
_MANY = 2000
_STEPS = (100, 200, 300, 400, 600, 800, 1000, 1200)
_OPEN_FILES = 16384


@dataclass(slots=True)
class Run:
    """One run of the benchmarks."""

    options: argparse.Namespace
    bench: Bench
    files: Path
    results: Results = field(default_factory=dict)

    def subjects(self, wanted: Callable[[Subject], bool], names: str | None = None) -> list[Subject]:
        """The chosen subjects that can do something; `names` are those that do it at all."""
        chosen = [subject for subject in SUBJECTS if not self.options.only or subject.name in self.options.only]
        return [subject for subject in chosen if wanted(subject) and (names is None or subject.name in names.split())]

    def place(self, subject: Subject) -> Place:
        """A fresh port and a directory for a subject."""
        files = Path(tempfile.mkdtemp(prefix=subject.name, dir=self.files))
        return Place(free_port(), self.bench.mock_port, files, self.options.environments)

    def note(self, measurement: str, subject: str, record: Record) -> None:
        """Keep a record, and show it."""
        self.results.setdefault(measurement, {}).setdefault(subject, []).append(record)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
        print(f"  {measurement:13}{subject:9}{shown}", flush=True)

    def has(self, measurement: str) -> bool:
        """Was it asked for?"""
        return not self.options.measure or measurement in self.options.measure


async def in_turns(run: Run) -> None:
    """What is measured in short rounds that take turns, with all subjects up."""
    with ExitStack() as stack:
        up: list[Running] = []
        for subject in run.subjects(lambda _: True):
            place = run.place(subject)
            log = place.files / "log"
            up.append(stack.enter_context(running(subject, place, run.bench.cores.subject, log=log)))
            run.bench.knobs(f"pieces={ANSWER_PIECES}")
        for subject_up in up:
            # Those that stream by themselves have an answer of their own length.
            pieces = ANSWER_PIECES if subject_up.subject.passes_on else measure.STREAM_PIECES
            check(subject_up, pieces)
        for number in range(run.options.rounds):
            print(f"round {number + 1} of {run.options.rounds}", flush=True)
            for subject_up in up:
                for name, measured in _round(run, subject_up).items():
                    run.note(
                        name, subject_up.subject.name, await measure.beside_reference(run.bench, subject_up, measured)
                    )
        if run.has("most-streams"):
            for subject_up in up:
                if subject_up.subject.name in ("sleep", "ticker", "floor", "gateway"):
                    record = await measure.most_streams(run.bench, subject_up, _STEPS)
                    run.note("most-streams", subject_up.subject.name, record)


def _round(run: Run, subject: Running) -> dict[str, Callable[[], Awaitable[Record]]]:
    """What belongs to one round of a subject."""
    bench, kind = run.bench, subject.subject
    parts: dict[str, Callable[[], Awaitable[Record]]] = {}
    if kind.answers:
        parts["closed"] = lambda: measure.closed(bench, subject)
        if kind.sessions:
            parts["closed-plain"] = lambda: measure.closed(bench, subject, turns=0)
        parts["open-50"] = lambda: measure.opened(bench, subject, 50)
        if not kind.slow:
            parts["open-200"] = lambda: measure.opened(bench, subject, 200)
    if kind.streams:
        parts["streams-50"] = lambda: measure.streams(bench, subject, 50)
    return {name: part for name, part in parts.items() if run.has(name)}


async def alone(run: Run) -> None:
    """What each subject is started anew for."""
    for subject in run.subjects(lambda subject: subject.answers and subject.name != "direct"):
        for _ in range(run.options.rounds if run.has("start") else 0):
            run.note("start", subject.name, first_answer(run, subject))
    tasks: list[tuple[str, str, Callable[[Running], Awaitable[Record]]]] = [
        ("in-flight", "nginx floor gateway", lambda up: measure.in_flight(run.bench, up, _MANY)),
        ("all-streams", "floor gateway", lambda up: measure.all_streams(run.bench, up, _MANY)),
        ("growth", "gateway", lambda up: measure.growth(run.bench, up, run.options.growth)),
    ]
    for name, names, measured in tasks:
        for subject in run.subjects(lambda _: run.has(name), names):  # noqa: B023 - called at once
            with running(subject, run.place(subject), run.bench.cores.subject, MANY_CALLS) as up:
                run.note(name, subject.name, await measured(up))


def first_answer(run: Run, subject: Subject) -> Record:
    """CPU and wall-clock seconds from the start to the first answer, and memory two seconds later."""
    began = time.monotonic()
    with running(subject, run.place(subject), run.bench.cores.subject) as up:
        record = {"cpu_seconds_to_first": up.cpu_seconds(), "seconds": time.monotonic() - began}
        time.sleep(2)
        reference = reference_seconds(run.bench.cores.subject) * 1000
        return record | {"resident_mb": up.resident_mb(), "reference_ms": reference}


def micro(run: Run) -> dict[str, float]:
    """The pure functions, in the gateway's own environment."""
    if not run.has("micro"):
        return {}
    python = run.place(SUBJECTS[-1]).python("gateway")
    command = ["taskset", "-c", str(run.bench.cores.subject), python, "-m", "benchmarks.micro"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def facts(options: argparse.Namespace, began: datetime) -> dict[str, str]:
    """When, what and where."""
    known = {
        "date": f"{began:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - began).total_seconds() / 60:.0f} minutes",
        "commit": options.commit,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load average before and after": f"{options.load_before:.1f}, {os.getloadavg()[0]:.1f}",
        "rounds": f"{options.rounds} of {options.seconds:g} s",
    }
    if not options.only or "litellm" in options.only:
        known["LiteLLM"] = version(options.environments, "litellm", "litellm")
    return known


def commit() -> str:
    """The commit that is checked out, and whether anything was changed since."""
    name = _git("rev-parse", "--short", "HEAD")
    return f"{name}-changed" if _git("status", "--porcelain", "--", "app", "main.py", "requirements.txt") else name


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


async def main(options: argparse.Namespace) -> None:
    """The whole run."""
    began = datetime.now(UTC)
    places = cores()
    with tempfile.TemporaryDirectory() as files, mock(places) as (port, process):
        os.sched_setaffinity(0, {places.load})
        run = Run(options, Bench(places, port, process, options.seconds), Path(files))
        pure = micro(run)
        await alone(run)
        if any(
            run.has(name) for name in ("closed", "closed-plain", "open-50", "open-200", "streams-50", "most-streams")
        ):
            await in_turns(run)
    records = [record for subjects in run.results.values() for rounds in subjects.values() for record in rounds]
    references = [record["reference_ms"] for record in records if "reference_ms" in record]
    tables = Tables(run.results, min(references, default=1.0))
    known = facts(options, began)
    text = f"# Benchmarks of {began:%Y-%m-%d}\n\n" + render(tables, known, pure)
    print("\n" + text)
    if options.write:
        place = ROOT / "benchmarks" / "results" / f"{began:%Y-%m-%d}-{known['commit']}"
        place.parent.mkdir(exist_ok=True)
        place.with_suffix(".md").write_text(text)
        document = {"facts": known, "reference_ms": tables.reference_ms, "micro": pure, "results": run.results}
        place.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


def words(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Reads a list of names."""

    def read(value: str) -> list[str]:
        names = value.split(",")
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (there are {', '.join(allowed)})")
        return names

    return read


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = tuple(subject.name for subject in SUBJECTS)
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--only", type=words(names), help="some subjects: " + ",".join(names))
    parser.add_argument("--measure", type=words(MEASUREMENTS), help="some measurements: " + ",".join(MEASUREMENTS))
    parser.add_argument("--rounds", type=int, help="how many rounds (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="how long a measured window is (4; quick: 2)")
    parser.add_argument("--growth", type=int, help="requests for the growth of memory (100,000; quick: 20,000)")
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".venvs", help="where they are")
    parser.add_argument("--no-write", dest="write", action="store_false", help="write no files into results")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (2.0 if options.quick else 4.0)
    options.growth = options.growth or (20_000 if options.quick else 100_000)
    options.load_before = os.getloadavg()[0]
    options.commit = commit()
    return options


if __name__ == "__main__":
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("Two cores are needed: one for the subject, one for the load.")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, most), most))
    uvloop.run(main(parse()))
