"""Counters, gauges and histograms that are cheap to update: a request does so a dozen times.

Only the event loop's thread updates them, so they do without the locks and label look-ups of `prometheus_client`'s own
metrics. `prometheus_client` still writes the text that Prometheus reads.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

# Label values, in the order of the label names.
Labels = tuple[str | int, ...]
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Instrument(ABC):
    """A metric: its definition and its numbers.

    Args:
        name: Its name in Prometheus.
        meaning: What it counts or measures, in one line. Shown in `/metrics` and in docs/metrics.md.
        unit: What it is counted in, such as `requests` or `seconds`.
        labels: The names of its labels. Each must have a bounded number of values.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, unit: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.unit = unit
        self.labels = labels

    @abstractmethod
    def collect(self) -> Family:
        """The current numbers, in the form that `prometheus_client` writes."""


class _Numbers(Instrument):
    """One number for each combination of label values.

    `values` is public for speed: `counter.values[labels] += 1` saves a call, and a request makes a dozen of them.
    """

    _family: ClassVar[type[CounterMetricFamily] | type[GaugeMetricFamily]]

    def __init__(self, name: str, meaning: str, unit: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, meaning, unit, labels)
        # A metric without labels is shown from the start; others, as soon as there is a number.
        self.values: defaultdict[Labels, float] = defaultdict(float, {} if labels else {(): 0.0})

    def collect(self) -> Family:
        """See `Instrument`."""
        family = self._family(self.name, self.meaning, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric([str(label) for label in labels], value)
        return family


class Counter(_Numbers):
    """How often something has happened."""

    kind = "counter"
    _family = CounterMetricFamily


class Gauge(_Numbers):
    """How much of something there is now."""

    kind = "gauge"
    _family = GaugeMetricFamily


class Histogram(Instrument):
    """How long something takes, in seconds.

    Args:
        bounds: The upper ends of the buckets, in ascending order.
    """

    kind = "histogram"

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...] = (), *, bounds: Sequence[float]) -> None:
        super().__init__(name, meaning, "seconds", labels)
        self._bounds = (*bounds, float("inf"))
        # For each combination of label values: the number of observations in each bucket, then the sum of all seconds.
        empty = [0.0] * (len(self._bounds) + 1)
        self._rows: defaultdict[Labels, list[float]] = defaultdict(empty.copy, {} if labels else {(): empty.copy()})

    def observe(self, seconds: float, labels: Labels = ()) -> None:
        """Record that something took `seconds`."""
        row = self._rows[labels]
        row[bisect_left(self._bounds, seconds)] += 1
        row[-1] += seconds

    def collect(self) -> Family:
        """See `Instrument`."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, row in self._rows.items():
            buckets = [(_bound(bound), sum(row[: index + 1])) for index, bound in enumerate(self._bounds)]
            family.add_metric([str(label) for label in labels], buckets, row[-1])
        return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(float(bound))
