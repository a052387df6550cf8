"""Families of Prometheus metrics that are cheap to count in: a request counts a dozen times.

prometheus_client's own look for labels, take locks and go through buckets each time: what it takes when threads count,
or when several processes do, in files that they share. Here one thread does; only where several processes share a port
are the numbers kept by prometheus_client.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
F = TypeVar("F", Counter, Gauge, Histogram)


class Counts(Protocol):
    """Numbers by their labels: of what has happened, or of what is there."""

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """One more, or several, or (of what is there) fewer."""
        ...


class Times(Protocol):
    """Histograms by their labels."""

    def observe(self, labels: Labels, seconds: float) -> None:
        """Something took so long."""
        ...


class Families(Protocol):
    """Makes families. Those without labels are shown from the beginning, others as soon as there is something."""

    def counter(self, name: str, description: str, labels: Labels = ()) -> Counts:
        """How often something has happened."""
        ...

    def gauge(self, name: str, description: str) -> Counts:
        """How many there are."""
        ...

    def histogram(self, name: str, description: str, labels: Labels = (), *, bounds: Sequence[float]) -> Times:
        """How long something takes; `bounds` are the upper ends of its buckets, in seconds."""
        ...


class OwnFamilies:
    """Families of a process of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, description: str, labels: Labels = ()) -> Counts:
        """See `Families`."""
        counts = _Counts(CounterMetricFamily, name, description, labels)
        self._registry.register(counts)
        return counts

    def gauge(self, name: str, description: str) -> Counts:
        """See `Families`."""
        counts = _Counts(GaugeMetricFamily, name, description, ())
        self._registry.register(counts)
        return counts

    def histogram(self, name: str, description: str, labels: Labels = (), *, bounds: Sequence[float]) -> Times:
        """See `Families`."""
        times = _Times(name, description, labels, bounds)
        self._registry.register(times)
        return times


class SharedFamilies:
    """Families of several processes, which prometheus_client adds up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, description: str, labels: Labels = ()) -> Counts:
        """See `Families`."""
        return _SharedCounts(_Children(Counter(name, description, labels, registry=self._registry), labels))

    def gauge(self, name: str, description: str) -> Counts:
        """See `Families`."""
        gauge = Gauge(name, description, registry=self._registry, multiprocess_mode="livesum")
        return _SharedCounts(_Children(gauge, ()))

    def histogram(self, name: str, description: str, labels: Labels = (), *, bounds: Sequence[float]) -> Times:
        """See `Families`."""
        histogram = Histogram(name, description, labels, registry=self._registry, buckets=bounds)
        return _SharedTimes(_Children(histogram, labels))


class _Counts(Collector):
    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        description: str,
        labels: Labels,
    ) -> None:
        self._family = partial(kind, name, description, labels=labels)
        self._values: defaultdict[Labels, float] = defaultdict(float, {} if labels else {(): 0.0})

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        self._values[labels] += amount

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        family = self._family()
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        yield family


class _Times(Collector):
    def __init__(self, name: str, description: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._family = partial(HistogramMetricFamily, name, description, labels=labels)
        self._bounds = (*bounds, float("inf"))
        # Of each: how many are in each bucket, and the sum of all seconds.
        self._rows: dict[Labels, list[float]] = {}
        if not labels:
            self._row(labels)

    def observe(self, labels: Labels, seconds: float) -> None:
        row = self._rows.get(labels) or self._row(labels)
        row[bisect_left(self._bounds, seconds)] += 1
        row[-1] += seconds

    def _row(self, labels: Labels) -> list[float]:
        self._rows[labels] = row = [0.0] * (len(self._bounds) + 1)
        return row

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = self._family()
        for labels, row in self._rows.items():
            buckets = [
                (floatToGoString(bound), sum(row[: index + 1]))  # type: ignore[no-untyped-call]  # it lacks annotations
                for index, bound in enumerate(self._bounds)
            ]
            family.add_metric(labels, buckets, row[-1])
        yield family


class _Children(dict[Labels, F], Generic[F]):
    """The members of a family, by their labels: looked up at each use, which `labels` isn't made for."""

    def __init__(self, family: F, labels: Labels) -> None:
        super().__init__()
        self._labelled: Callable[..., F] = family.labels
        if not labels:
            self[()] = family

    def __missing__(self, labels: Labels) -> F:
        child = self._labelled(*labels)
        self[labels] = child
        return child


class _SharedCounts:
    def __init__(self, children: "_Children[Counter] | _Children[Gauge]") -> None:
        self._children = children

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        self._children[labels].inc(amount)


class _SharedTimes:
    def __init__(self, children: _Children[Histogram]) -> None:
        self._children = children

    def observe(self, labels: Labels, seconds: float) -> None:
        self._children[labels].observe(seconds)
