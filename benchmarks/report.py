"""Results as tables: medians with their spread, ratios, and what was meant to be reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Record
from benchmarks.subjects import SUBJECTS

Results = dict[str, dict[str, list[Record]]]
"""Measurement -> subject -> one record for each round."""

_TITLES = {subject.name: subject.title for subject in SUBJECTS}


@dataclass(frozen=True, slots=True)
class Tables:
    """Reads figures out of results.

    Args:
        results: All records.
        reference_ms: What the reference work takes when the machine is at its fastest; CPU figures are scaled to it.
    """

    results: Results
    reference_ms: float

    def values(self, measurement: str, subject: str, name: str) -> list[float]:
        """A figure of all rounds; CPU figures as if the machine had been at its fastest all the time."""
        records = self.results.get(measurement, {}).get(subject, [])
        scaled = name.startswith("cpu_")
        return [
            record[name] * (self.reference_ms / record["reference_ms"] if scaled and "reference_ms" in record else 1.0)
            for record in records
            if name in record
        ]

    def middle(self, measurement: str, subject: str, name: str) -> float | None:
        """The median of all rounds; None if nothing was measured."""
        values = self.values(measurement, subject, name)
        return median(values) if values else None

    def spread(self, measurement: str, subject: str, name: str, digits: int = 2) -> str:
        """The median, and in parentheses the smallest and the largest."""
        values = self.values(measurement, subject, name)
        if not values:
            return "–"
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        middle = f"{median(values):.{digits}f}"
        return middle if len(values) == 1 else f"{middle} ({low}–{high})"

    def ratio(self, measurement: str, subject: str, other: str, name: str, others: str = "") -> float | None:
        """How many times the other subject's figure this one's is; the other's may be of another measurement."""
        one, two = self.middle(measurement, subject, name), self.middle(others or measurement, other, name)
        return one / two if one and two else None

    def added(self, rate: int, subject: str, name: str) -> list[float]:
        """What a latency is above the direct one of the same round."""
        measurement = f"open-{rate}"
        pairs = zip(self.values(measurement, subject, name), self.values(measurement, "direct", name), strict=False)
        return [own - direct for own, direct in pairs]

    def overloaded(self, rate: int, subject: str) -> bool:
        """Did the subject fall behind at this rate?"""
        done, asked = self.middle(f"open-{rate}", subject, "done"), self.middle(f"open-{rate}", subject, "asked")
        return done is not None and asked is not None and done < 0.97 * asked


def render(tables: Tables, facts: dict[str, str], micro: dict[str, float]) -> str:
    """The whole report, as Markdown."""
    parts = [
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## Reached\n\n" + _table(("Figure", "Aim", "Measured", ""), reach(tables, micro)),
        "## One answer, whole\n\n" + _closed(tables),
        "## Added latency\n\n" + _open(tables),
        "## Streams\n\n" + _streams(tables),
        "## Many at once, memory, start\n\n" + _many(tables),
        "## Pure functions, ms\n\n" + _table(("What", "ms"), [(name, f"{ms:.3f}") for name, ms in micro.items()]),
    ]
    return "\n\n".join(part for part in parts if not part.endswith("--- |")) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _names(tables: Tables, measurement: str) -> list[str]:
    return [subject.name for subject in SUBJECTS if tables.results.get(measurement, {}).get(subject.name)]


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def _closed(tables: Tables) -> str:
    cpu = "cpu_ms_per_request"
    rows = []
    for kind, further in (("closed", ""), ("closed-plain", ", without a session")):
        rows += [
            (
                _TITLES[name] + further,
                tables.spread(kind, name, cpu, 3),
                _times(tables.ratio(kind, name, "litellm", cpu, "closed")),
                _times(tables.ratio(kind, name, "floor", cpu, "closed")),
                _times(tables.ratio(kind, name, "own-floor", cpu, "closed")),
                f"{1000 / (tables.middle(kind, name, cpu) or 1):,.0f}",
                f"{max(tables.values(kind, name, 'per_second')):,.0f}" + _limited(tables, kind, name),
            )
            for name in _names(tables, kind)
            if name != "direct"
        ]
    return _table(
        (
            *("", "CPU ms a request", "× LiteLLM", "× floor", "× floor with our client"),
            *("requests a CPU second", "requests/s, best round"),
        ),
        rows,
    )


def _limited(tables: Tables, measurement: str, name: str) -> str:
    """A mark where the load could give no more."""
    busy = tables.middle(measurement, name, "load_busy")
    return " ≥" if busy is not None and busy > 0.85 else ""


def _open(tables: Tables) -> str:
    rates = sorted(int(name.partition("-")[2]) for name in tables.results if name.startswith("open-"))
    head = ["", *(f"{kind} at {rate}/s, ms" for rate in rates for kind in ("p50", "p99", "CPU"))]
    rows = []
    for name in _names(tables, f"open-{rates[0]}") if rates else []:
        cells = [_TITLES[name]]
        for rate in rates:
            cells += _latency(tables, rate, name)
        rows.append(cells)
    return _table(head, rows)


def _latency(tables: Tables, rate: int, name: str) -> list[str]:
    if tables.overloaded(rate, name):
        return ["falls behind", "–", "–"]
    sign = "" if name == "direct" else "+"
    cells = []
    for kind in ("p50_ms", "p99_ms"):
        if name == "direct":
            values = tables.values(f"open-{rate}", name, kind)
        else:
            values = tables.added(rate, name, kind)
        cells.append(
            f"{median(values):{sign}.2f} ({min(values):{sign}.2f} … {max(values):{sign}.2f})" if values else "–"
        )
    return [*cells, "–" if name == "direct" else tables.spread(f"open-{rate}", name, "cpu_ms_per_request")]


def _streams(tables: Tables) -> str:
    rows = []
    for name in _names(tables, "streams-50"):
        most = tables.results.get("most-streams", {}).get(name, [{}])[0]
        rows.append(
            (
                _TITLES[name],
                "–" if name == "direct" else tables.spread("streams-50", name, "cpu_us_per_event", 1),
                _times(tables.ratio("streams-50", name, "litellm", "cpu_us_per_event")),
                _times(tables.ratio("streams-50", name, "sleep", "cpu_us_per_event")),
                tables.spread("streams-50", name, "first_p50_ms", 1),
                tables.spread("streams-50", name, "gap_p99_ms", 1),
                tables.spread("streams-50", name, "jitter_p50_ms", 1),
                f"{most['streams']:.0f}" if "streams" in most else "–",
            )
        )
    head = (
        *("", "CPU µs an event", "× LiteLLM", "× bare", "first event p50, ms"),
        *("p99 gap, ms", "p50 jitter, ms", "most streams with p99 gap ≤ 30 ms"),
    )
    return _table(head, rows)


def _many(tables: Tables) -> str:
    rows = []
    for subject in SUBJECTS:
        name = subject.name
        if not any(tables.results.get(kind, {}).get(name) for kind in ("start", "in-flight", "all-streams")):
            continue
        rows.append(
            (
                subject.title,
                tables.spread("start", name, "cpu_seconds_to_first"),
                tables.spread("start", name, "resident_mb", 0),
                tables.spread("in-flight", name, "at_once", 0),
                tables.spread("in-flight", name, "kb_per_call", 0),
                _pair(tables, "in-flight", name, "threads_before", "threads"),
                tables.spread("all-streams", name, "resident_mb", 0),
                _pair(tables, "all-streams", name, "answered", "incomplete"),
            )
        )
    head = (
        *("", "CPU s to the first answer", "idle MB", "calls at once", "KB a call", "threads before, during"),
        *("MB with 2,000 streams", "answered, incomplete"),
    )
    return _table(head, rows)


def _pair(tables: Tables, measurement: str, name: str, one: str, two: str) -> str:
    first, second = tables.middle(measurement, name, one), tables.middle(measurement, name, two)
    return "–" if first is None or second is None else f"{first:.0f}, {second:.0f}"


def reach(tables: Tables, micro: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """What was meant to be reached, and whether it was."""

    def row(what: str, aim: str, value: float | None, met: Callable[[float], bool], form: str) -> None:
        if value is None:
            rows.append((what, aim, "not measured", ""))
        else:
            rows.append((what, aim, form.format(value), "met" if met(value) else "**not met**"))

    rows: list[tuple[str, str, str, str]] = []
    cpu, event = "cpu_ms_per_request", "cpu_us_per_event"
    inverse = tables.ratio("closed", "litellm", "gateway", cpu)
    row("CPU of a request, LiteLLM's share", "≤ 1/45", inverse, lambda x: x >= 45, "1/{:.0f}")
    inverse = tables.ratio("closed", "litellm", "gateway", cpu, "closed-plain")
    row("… without a session", "≤ 1/55", inverse, lambda x: x >= 55, "1/{:.0f}")
    inverse = tables.ratio("closed", "litellm", "gateway-limits", cpu, "closed-plain")
    row("… and of a key with four limits", "≤ 1/52", inverse, lambda x: x >= 52, "1/{:.0f}")
    for name, title in (("floor", "… and the floor's"), ("own-floor", "… and the floor's with our client")):
        row(title, "≤ 1.5 ×", tables.ratio("closed", "gateway", name, cpu), lambda x: x <= 1.5, "{:.2f} ×")
    added = tables.added(200, "gateway", "p50_ms")
    row("added p50 at 200/s", "≤ 1.5 ms", median(added) if added else None, lambda x: x <= 1.5, "{:.2f} ms")
    inverse = tables.ratio("streams-50", "litellm", "gateway", event)
    row("CPU of an event, LiteLLM's share", "≤ 1/50", inverse, lambda x: x >= 50, "1/{:.0f}")
    for name, title in (("sleep", "… and the bare ASGI stream's"), ("ticker", "… and with one ticker for all")):
        row(title, "≤ 1.3 ×", tables.ratio("streams-50", "gateway", name, event), lambda x: x <= 1.3, "{:.2f} ×")
    most = tables.middle("most-streams", "gateway", "streams")
    row("paced streams with p99 gap ≤ 30 ms", "≥ 800", most, lambda x: x >= 800, "{:.0f}")
    row("calls in flight", "2,000", tables.middle("in-flight", "gateway", "at_once"), lambda x: x >= 2000, "{:.0f}")
    each = tables.middle("in-flight", "gateway", "kb_per_call")
    row("… memory of each", "≤ 60 KB", each, lambda x: x <= 60, "{:.0f} KB")
    before, during = (tables.middle("in-flight", "gateway", name) for name in ("threads_before", "threads"))
    more = None if before is None or during is None else during - before
    row("… more threads", "0", more, lambda x: x <= 0, "{:.0f}")
    row("idle worker", "≤ 75 MB", tables.middle("start", "gateway", "resident_mb"), lambda x: x <= 75, "{:.0f} MB")
    number = tables.middle("growth", "gateway", "requests")
    grown = tables.middle("growth", "gateway", "grown_mb")
    what = "growth" if number is None else f"growth over {number:,.0f} requests"
    row(what, "≤ 3 MB", grown, lambda x: x <= 3, "{:.1f} MB")
    memory = tables.middle("all-streams", "gateway", "resident_mb")
    row("2,000 streams, memory", "≤ 150 MB", memory, lambda x: x <= 150, "{:.0f} MB")
    lost = tables.middle("all-streams", "gateway", "incomplete")
    answered = tables.middle("all-streams", "gateway", "answered")
    missing = None if lost is None or answered is None else 2000 - answered + lost
    row("… lost or refused", "0", missing, lambda x: x == 0, "{:.0f}")
    first = tables.middle("start", "gateway", "cpu_seconds_to_first")
    row("CPU to the first answer", "≤ 1.0 s", first, lambda x: x <= 1.0, "{:.2f} s")
    row("composer, 200 messages of 1 KB", "≤ 1 ms", micro.get("compose_ms"), lambda x: x <= 1, "{:.3f} ms")
    row("decode and validate, 100 KB", "≤ 0.5 ms", micro.get("decode_ms"), lambda x: x <= 0.5, "{:.3f} ms")
    return rows
