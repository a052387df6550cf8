"""The gateway's own counters, gauges and histograms."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as TheirCounter
from prometheus_client import Gauge as TheirGauge
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.observe.exposition import family_of
from app.observe.metrics import Counter, Gauge, Histogram, Numbers

BOUNDS = (0.005, 0.1, 1, 20)
SECONDS = (0, 0.005, 0.0051, 0.1, 19.9, 20, 21)
ODD = 'a "quoted"\nname'


class Instruments(Collector):
    """Shows instruments to `prometheus_client`."""

    def __init__(self, *instruments: Numbers | Histogram) -> None:
        self._instruments = instruments

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for instrument in self._instruments:
            yield family_of(instrument)


def test_instruments_are_written_as_prometheus_clients_own_are() -> None:
    """Names, types, labels, buckets and numbers are the same to the letter."""
    answers = Counter("answers_total", "Answers given", "answers", ("model", "status"))
    answers.values["kimi", 200] += 42
    answers.values[ODD, 500] += 1
    present = Gauge("present", "Those who are there", "clients")
    present.values[()] += 2
    present.values[()] -= 1
    seconds = Histogram("answer_seconds", "How long it took", ("model",), bounds=BOUNDS)
    for duration in SECONDS:
        seconds.observe(duration, ("kimi",))
    ours = Instruments(
        answers,
        Counter("dropped_total", "Never counted, with labels", "messages", ("model",)),
        Counter("pings_total", "Never counted, without labels", "pings"),
        present,
        seconds,
        Histogram("lag_seconds", "Never observed", bounds=BOUNDS),
    )
    assert lines(ours) == lines(theirs())


def theirs() -> CollectorRegistry:
    registry = CollectorRegistry()
    answers = TheirCounter("answers_total", "Answers given", ("model", "status"), registry=registry)
    answers.labels("kimi", 200).inc(42)
    answers.labels(ODD, 500).inc()
    TheirCounter("dropped_total", "Never counted, with labels", ("model",), registry=registry)
    TheirCounter("pings_total", "Never counted, without labels", registry=registry)
    TheirGauge("present", "Those who are there", registry=registry).set(1)
    seconds = TheirHistogram("answer_seconds", "How long it took", ("model",), registry=registry, buckets=BOUNDS)
    for duration in SECONDS:
        seconds.labels("kimi").observe(duration)
    TheirHistogram("lag_seconds", "Never observed", registry=registry, buckets=BOUNDS)
    return registry


def lines(collector: Collector) -> list[str]:
    # Only prometheus_client says when a metric was created.
    return [line for line in generate_latest(collector).decode().splitlines() if "_created" not in line]
