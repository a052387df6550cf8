"""Metrics in the text format that Prometheus reads.

Imported at the first scrape: many workers never see one, and `prometheus_client` takes long to import.
"""

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.observe.metrics import Counter, Histogram, Metrics, Numbers

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Exposition(Collector):
    """Shows the metrics of a worker to `prometheus_client`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        return [family_of(instrument) for instrument in self._metrics.read()]

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self)


def family_of(instrument: Numbers | Histogram) -> Metric:
    """The current numbers of a metric, in the form that `prometheus_client` writes."""
    if isinstance(instrument, Histogram):
        return _of_histogram(instrument)
    kind = CounterMetricFamily if isinstance(instrument, Counter) else GaugeMetricFamily
    family = kind(instrument.name, instrument.meaning, labels=instrument.labels)
    for labels, value in instrument.values.items():
        family.add_metric([str(label) for label in labels], value)
    return family


def _of_histogram(histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(histogram.name, histogram.meaning, labels=histogram.labels)
    for labels, row in histogram.rows.items():
        buckets = [(_bound(bound), sum(row[: index + 1])) for index, bound in enumerate(histogram.bounds)]
        family.add_metric([str(label) for label in labels], buckets, row[-1])
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(float(bound))
