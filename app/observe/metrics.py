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

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.domain.errors import GatewayError
from app.domain.tracing import Trace, no_trace
from app.domain.usage import CallRecord
from app.observe.families import Counts, Families, OwnFamilies, SharedFamilies, Times

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 180)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

ReadState = Callable[[], Mapping[str, Mapping[str, float]]]


class _Step:
    """A stretch of time that is taken."""

    __slots__ = ("_failures", "_name", "_seconds", "_started")

    def __init__(self, seconds: Times, failures: Counts, name: str, /) -> None:
        self._seconds = seconds
        self._failures = failures
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._failures.add((self._name, _kind(error)))
        self._seconds.observe((self._name,), time.perf_counter() - self._started)


class _TracedStep(_Step):
    """A span that is timed."""

    __slots__ = ("_span",)

    def __init__(self, trace: Trace, seconds: Times, failures: Counts, name: str, /) -> None:
        super().__init__(seconds, failures, name)
        self._span = trace(name)

    def __enter__(self) -> None:
        super().__enter__()
        self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, traceback)
        super().__exit__(kind, error, traceback)


class Metrics:
    """All metrics of a worker.

    Args:
        read_state: The numbers of the moment: gauge name -> provider -> value; read at each scrape.
    """

    def __init__(self, read_state: ReadState = dict) -> None:
        self._is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = registry = CollectorRegistry()
        registry.register(_State(read_state))
        families: Families = SharedFamilies(registry) if self._is_shared else OwnFamilies(registry)
        counter, gauge = families.counter, families.gauge
        histogram = partial(families.histogram, bounds=_SECONDS)
        self._requests = counter("kimi_http_requests_total", "Requests answered", ("method", "route", "status"))
        self._seconds = histogram("kimi_http_request_seconds", "Time to the end of the answer", ("route",))
        self._in_flight = gauge("kimi_http_requests_in_flight", "Requests being answered")
        self._streams = gauge("kimi_streams_active", "Open event streams")
        self._calls = counter(
            "kimi_calls_total",
            "Calls for an answer, by how they ended",
            ("model", "provider", "outcome", "error", "session"),
        )
        self._upstream = histogram(
            "kimi_upstream_seconds",
            "Time to the upstream's answer (its first part), queue and retries included",
            ("provider",),
        )
        self._first_text = histogram("kimi_stream_first_text_seconds", "Time until a stream's first text is written")
        self._steps = histogram(
            "kimi_step_seconds",
            "Time of each step of a call: each try at the upstream, each page fetch, each wait in the queue ...",
            ("step",),
        )
        self._step_failures = counter(
            "kimi_step_failures_total", "Steps that failed, those that were tried again too", ("step", "error")
        )
        self._passed_over = counter(
            "kimi_passed_over_total", "Targets of calls that could not answer, and why", ("provider", "reason")
        )
        self._tokens = counter("kimi_tokens_total", "Tokens read and written", ("model", "kind"))
        self._dropped = counter("kimi_context_dropped_messages_total", "Messages that did not fit", ("model",))
        self._heartbeats = counter("kimi_heartbeats_total", "Comments sent in silent streams")
        self._lag = families.histogram(
            "kimi_event_loop_lag_seconds", "How late the event loop wakes up", bounds=_LAG_SECONDS
        )

    def request_began(self) -> None:
        """A request came in."""
        self._in_flight.add()

    def request_ended(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over. `route` must be one of a bounded number of names."""
        self._in_flight.add(amount=-1)
        self._requests.add((method, route, str(status)))
        self._seconds.observe((route,), seconds)

    def stream_began(self) -> None:
        """A stream has opened."""
        self._streams.add()

    def stream_ended(self) -> None:
        """A stream has closed."""
        self._streams.add(amount=-1)

    def first_text(self, seconds: float) -> None:
        """A stream's first text goes out, so long after its request had come."""
        self._first_text.observe((), seconds)

    def heartbeat(self) -> None:
        """A comment was sent to keep a silent stream open."""
        self._heartbeats.add()

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke up so late."""
        self._lag.observe((), seconds)

    def timing(self, trace: Trace) -> Trace:
        """The same spans, each of which is timed and counted under its name, too."""
        if trace is no_trace:
            return partial(_Step, self._steps, self._step_failures)
        return partial(_TracedStep, trace, self._steps, self._step_failures)

    def call_ended(self, record: CallRecord) -> None:
        """A call for an answer is over."""
        error, action = record.error_code or "", record.action or ""
        self._calls.add((record.model, record.provider, record.outcome, error, action))
        if record.upstream_seconds is not None:
            self._upstream.observe((record.provider,), record.upstream_seconds)
        for provider, reason in record.passed_over:
            self._passed_over.add((provider, reason))
        if record.usage is not None:
            self._tokens.add((record.model, "prompt"), record.usage.prompt_tokens)
            self._tokens.add((record.model, "completion"), record.usage.completion_tokens)
        if record.dropped:
            self._dropped.add((record.model,), record.dropped)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        if not self._is_shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # its constructor lacks annotations
        return generate_latest(together)

    def close(self) -> None:
        """The process ends: what it had in flight is no longer part of the sum."""
        if self._is_shared:
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
