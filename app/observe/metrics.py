"""Numbers for Prometheus. The core tells what happened by frozen records and knows nothing of Prometheus.

Each worker counts for itself. Where several processes share a port (uvicorn --workers), PROMETHEUS_MULTIPROC_DIR makes
the one that is asked add up all of them; the numbers of a moment (`kimi_provider_*`, `kimi_session_store_up`,
`kimi_sessions`) are then left out, because one process can't know another's.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.domain.errors import GatewayError
from app.domain.tracing import Trace
from app.domain.usage import CallRecord

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 180)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

F = TypeVar("F", Counter, Histogram)

ReadState = Callable[[], Mapping[str, Mapping[str, float]]]


class _Children(dict[tuple[str, ...], F], Generic[F]):
    """The members of a family of metrics, by their labels: looked up at each use, which `labels` isn't made for."""

    def __init__(self, kind: Callable[..., F], *description: object, **options: object) -> None:
        super().__init__()
        self._family: F = kind(*description, **options)

    def __missing__(self, labels: tuple[str, ...]) -> F:
        child: F = self._family.labels(*labels)
        self[labels] = child
        return child


class _Step:
    """A span that is timed."""

    __slots__ = ("_failures", "_name", "_seconds", "_span", "_started")

    def __init__(self, trace: Trace, seconds: _Children[Histogram], failures: _Children[Counter], name: str, /) -> None:
        self._span = trace(name)
        self._seconds = seconds
        self._failures = failures
        self._name = name
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, traceback)
        if error is not None:
            self._failures[self._name, _kind(error)].inc()
        self._seconds[self._name,].observe(time.perf_counter() - self._started)


class Metrics:
    """All metrics of a worker.

    Args:
        read_state: The numbers of the moment: gauge name -> provider -> value; read at each scrape.
    """

    def __init__(self, read_state: ReadState = dict) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(_State(read_state))
        self._requests = _Children(
            Counter, "kimi_http_requests_total", "Requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = _Children(
            Histogram,
            "kimi_http_request_seconds",
            "Time to the end of the answer",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "kimi_http_requests_in_flight", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )
        self._streams = Gauge(
            "kimi_streams_active", "Open event streams", registry=registry, multiprocess_mode="livesum"
        )
        self._calls = _Children(
            Counter,
            "kimi_calls_total",
            "Calls for an answer, by how they ended",
            ("model", "provider", "outcome", "error", "session"),
            registry=registry,
        )
        self._upstream = _Children(
            Histogram,
            "kimi_upstream_seconds",
            "Time to the upstream's answer (its first part), queue and retries included",
            ("provider",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_text = Histogram(
            "kimi_stream_first_text_seconds",
            "Time until a stream's first text is written",
            buckets=_SECONDS,
            registry=registry,
        )
        self._steps = _Children(
            Histogram,
            "kimi_step_seconds",
            "Time of each step of a call: each try at the upstream, each page fetch, each wait in the queue ...",
            ("step",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._step_failures = _Children(
            Counter,
            "kimi_step_failures_total",
            "Steps that failed, those that were tried again too",
            ("step", "error"),
            registry=registry,
        )
        self._passed_over = _Children(
            Counter,
            "kimi_passed_over_total",
            "Targets of calls that could not answer, and why",
            ("provider", "reason"),
            registry=registry,
        )
        self._tokens = _Children(
            Counter, "kimi_tokens_total", "Tokens read and written", ("model", "kind"), registry=registry
        )
        self._dropped = _Children(
            Counter, "kimi_context_dropped_messages_total", "Messages that did not fit", ("model",), registry=registry
        )
        self._heartbeats = Counter("kimi_heartbeats_total", "Comments sent in silent streams", registry=registry)
        self._lag = Histogram(
            "kimi_event_loop_lag_seconds", "How late the event loop wakes up", buckets=_LAG_SECONDS, registry=registry
        )

    def request_began(self) -> None:
        """A request came in."""
        self._in_flight.inc()

    def request_ended(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over. `route` must be one of a bounded number of names."""
        self._in_flight.dec()
        self._requests[method, route, str(status)].inc()
        self._seconds[route,].observe(seconds)

    def stream_began(self) -> None:
        """A stream has opened."""
        self._streams.inc()

    def stream_ended(self) -> None:
        """A stream has closed."""
        self._streams.dec()

    def first_text(self, seconds: float) -> None:
        """A stream's first text goes out, so long after its request had come."""
        self._first_text.observe(seconds)

    def heartbeat(self) -> None:
        """A comment was sent to keep a silent stream open."""
        self._heartbeats.inc()

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke up so late."""
        self._lag.observe(seconds)

    def timing(self, trace: Trace) -> Trace:
        """The same spans, each of which is timed and counted under its name, too."""
        return partial(_Step, trace, self._steps, self._step_failures)

    def call_ended(self, record: CallRecord) -> None:
        """A call for an answer is over."""
        self._calls[record.model, record.provider, record.outcome, record.error_code or "", record.action or ""].inc()
        if record.upstream_seconds is not None:
            self._upstream[record.provider,].observe(record.upstream_seconds)
        for provider, reason in record.passed_over:
            self._passed_over[provider, reason].inc()
        if record.usage is not None:
            self._tokens[record.model, "prompt"].inc(record.usage.prompt_tokens)
            self._tokens[record.model, "completion"].inc(record.usage.completion_tokens)
        if record.dropped:
            self._dropped[record.model,].inc(record.dropped)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # its constructor lacks annotations
        return generate_latest(together)

    def close(self) -> None:
        """The process ends: what it had in flight is no longer part of the sum."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # it lacks annotations


def _kind(error: BaseException) -> str:
    """One of a bounded number of names."""
    if isinstance(error, GatewayError):
        return error.code or ""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"  # the client has left, or the time for the whole call is over
    return "timeout" if isinstance(error, TimeoutError) else "internal_error"


class _State(Collector):
    """Gauges that are read when somebody asks."""

    def __init__(self, read: ReadState) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, values in self._read().items():
            gauge = GaugeMetricFamily(name, name.replace("_", " "), labels=("of",))
            for place, value in values.items():
                gauge.add_metric((place,), value)
            yield gauge
