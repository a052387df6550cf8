"""The gateway's metrics. Each worker counts for itself and is scraped by itself.

To add a metric, define it in `Metrics.__init__` and give `Metrics` a method that counts. The table in docs/metrics.md
is generated from the definitions.
"""

import asyncio
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import ClassVar

from app.domain.errors import GatewayError
from app.domain.spans import Trace, no_trace
from app.domain.usage import CallRecord

# Label values, in the order of the label names.
Labels = tuple[str | int, ...]

_BOUNDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 180)
_LAG_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
# Read at each scrape; a provider reports its own as `ProviderStatus.gauges`. Name, meaning, unit.
_STATE = (
    ("kimi_session_store_up", "1 if the session store can be used", "0 or 1"),
    ("kimi_sessions", "Sessions in this worker's memory", "sessions"),
    ("kimi_database_up", "1 if the database of keys and calls can be used", "0 or 1"),
    ("kimi_ledger_waiting", "Calls in this worker's journal that are not in the database yet", "calls"),
    ("kimi_ledger_written", "Calls of this worker that were carried into the database", "calls"),
    ("kimi_ledger_lost", "Calls that neither journal nor memory had room for, or whose line is no row", "calls"),
    ("kimi_recorded_texts_lost", "Texts of recorded keys that this worker could not keep", "texts"),
    ("kimi_limits_shared", "0 while the database is away, and each worker keeps to its share of limits", "0 or 1"),
    ("kimi_provider_ready", "1 if the provider can serve, as far as is known", "0 or 1"),
    ("kimi_provider_breaker_closed", "1 if the circuit breaker lets all requests through", "0 or 1"),
    ("kimi_provider_queue_depth", "Requests waiting for a slot at the upstream", "requests"),
    ("kimi_provider_slots_free", "Free slots at the upstream", "requests"),
    ("kimi_provider_pause_seconds", "Time left of the pause that the upstream has asked for", "seconds"),
    ("kimi_provider_nonce_age_seconds", "Time since the site's nonce was fetched; 0 if there is none", "seconds"),
    ("kimi_provider_nonce_fetches", "Fetches of the chat page since the start", "fetches"),
)

# Gauge name -> what the number is of (a provider, the store) -> number.
State = Mapping[str, Mapping[str, float]]


class Instrument:
    """A metric: its definition and its numbers. Cheap to update, which each request does a dozen times.

    Only the event loop's thread updates it, so it does without the locks and label look-ups of `prometheus_client`'s
    own metrics. `prometheus_client` still writes the text that Prometheus reads: see `app.observe.exposition`.

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


class Numbers(Instrument):
    """One number for each combination of label values.

    `values` is public for speed: `counter.values[labels] += 1` saves a call, and a request makes a dozen of them.
    """

    def __init__(self, name: str, meaning: str, unit: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, meaning, unit, labels)
        # A metric without labels is shown from the start; others, as soon as there is a number.
        self.values: defaultdict[Labels, float] = defaultdict(float, {} if labels else {(): 0.0})


class Counter(Numbers):
    """How often something has happened."""

    kind = "counter"


class Gauge(Numbers):
    """How much of something there is now."""

    kind = "gauge"


class Histogram(Instrument):
    """How long something takes, in seconds.

    Args:
        bounds: The upper ends of the buckets, in ascending order; infinity comes after the last.

    Attributes:
        rows: For each combination of label values, the number of observations in each bucket, then the sum of all
            seconds.
    """

    kind = "histogram"

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...] = (), *, bounds: Sequence[float]) -> None:
        super().__init__(name, meaning, "seconds", labels)
        self.bounds = (*bounds, float("inf"))
        empty = [0.0] * (len(self.bounds) + 1)
        self.rows: defaultdict[Labels, list[float]] = defaultdict(empty.copy, {} if labels else {(): empty.copy()})

    def observe(self, seconds: float, labels: Labels = ()) -> None:
        """Record that something took `seconds`."""
        row = self.rows[labels]
        row[bisect_left(self.bounds, seconds)] += 1
        row[-1] += seconds


class Metrics:
    """All metrics of a worker.

    Args:
        read_state: Reads the gauges that are taken at each scrape.
    """

    def __init__(self, read_state: Callable[[], State] = dict) -> None:
        self.read_state = read_state
        self.instruments: list[Numbers | Histogram] = []
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._requests = counter(
            "kimi_http_requests_total",
            "HTTP requests, by route and status (499: the client left before the answer)",
            "requests",
            ("method", "route", "status"),
        )
        self._request_seconds = histogram(
            "kimi_http_request_seconds", "Time from a request's arrival to the end of its answer", ("route",)
        )
        self._in_flight = gauge("kimi_http_requests_in_flight", "HTTP requests being answered", "requests")
        self._streams = gauge("kimi_streams_active", "Open event streams", "streams")
        self._first_text = histogram(
            "kimi_stream_first_text_seconds", "Time from the arrival of a streamed request to its first text"
        )
        self._heartbeats = counter("kimi_heartbeats_total", "Comments sent to keep silent streams open", "comments")
        self._calls = counter(
            "kimi_calls_total",
            "Calls for an answer, by outcome (completed, failed, abandoned), error code and session action",
            "calls",
            ("model", "provider", "outcome", "error", "session"),
        )
        self._passed_over = counter(
            "kimi_passed_over_total",
            "Providers that could not answer a call, so that the next one was asked; the reason is an error code",
            "calls",
            ("provider", "reason"),
        )
        self._upstream_seconds = histogram(
            "kimi_upstream_seconds",
            "Time to an upstream's answer (of a stream, its first part), including queueing and retries",
            ("provider",),
        )
        self._step_seconds = histogram(
            "kimi_step_seconds",
            "Time of each step of a call: an attempt at the upstream, a page fetch, a wait in the queue",
            ("step",),
        )
        self._step_failures = counter(
            "kimi_step_failures_total", "Failed steps, including those tried again", "steps", ("step", "error")
        )
        self._tokens = counter(
            "kimi_tokens_total",
            "Tokens in prompts and completions, as the ledger counts them; partly estimated",
            "tokens",
            ("model", "kind"),
        )
        self._units = counter(
            "kimi_units_total",
            "What was used besides tokens: images made, seconds of audio, characters spoken, searches",
            "units",
            ("model", "unit"),
        )
        self._dropped = counter(
            "kimi_context_dropped_messages_total",
            "Messages left out of prompts because they did not fit",
            "messages",
            ("model",),
        )
        self._limit_refusals = counter(
            "kimi_limit_refusals_total",
            "Calls that a limit of a key, a project, an upstream or the gateway had no room for, and what it counts",
            "calls",
            ("scope", "measure"),
        )
        self._key_look_ups = counter(
            "kimi_key_look_ups_total",
            "Look-ups of keys from the database; a hit is one in memory",
            "look-ups",
            ("result",),
        )
        self._cached_answers = counter(
            "kimi_answer_cache_total",
            "Calls that may be answered from the cache of answers: a hit was, a miss was not",
            "calls",
            ("result",),
        )
        self._tools_left_out = counter(
            "kimi_tools_left_out_total", "Tools left out of prompts because they did not fit", "tools", ("model",)
        )
        self._lag = histogram(
            "kimi_event_loop_lag_seconds", "How late the event loop wakes up, twice a second", bounds=_LAG_BOUNDS
        )
        self._state = {name: gauge(name, meaning, unit, ("of",)) for name, meaning, unit in _STATE}

    def _counter(self, name: str, meaning: str, unit: str, labels: tuple[str, ...] = ()) -> Counter:
        self.instruments.append(counter := Counter(name, meaning, unit, labels))
        return counter

    def _gauge(self, name: str, meaning: str, unit: str, labels: tuple[str, ...] = ()) -> Gauge:
        self.instruments.append(gauge := Gauge(name, meaning, unit, labels))
        return gauge

    def _histogram(
        self, name: str, meaning: str, labels: tuple[str, ...] = (), bounds: Sequence[float] = _BOUNDS
    ) -> Histogram:
        self.instruments.append(histogram := Histogram(name, meaning, labels, bounds=bounds))
        return histogram

    def request_began(self) -> None:
        """Count a request that came in."""
        self._in_flight.values[()] += 1

    def request_ended(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that is over. `method` and `route` must come from a bounded set of names."""
        self._in_flight.values[()] -= 1
        self._requests.values[method, route, status] += 1
        self._request_seconds.observe(seconds, (route,))

    def stream_began(self) -> None:
        """Count a stream that has opened."""
        self._streams.values[()] += 1

    def stream_ended(self) -> None:
        """Count a stream that has closed."""
        self._streams.values[()] -= 1

    def first_text(self, seconds: float) -> None:
        """Record how long after its request's arrival a stream's first text goes out."""
        self._first_text.observe(seconds)

    def heartbeat(self) -> None:
        """Count a comment that keeps a silent stream open."""
        self._heartbeats.values[()] += 1

    def key_looked_up(self, result: str) -> None:
        """Count a look-up of a key: "hit" or "miss"."""
        self._key_look_ups.values[result,] += 1

    def answer_looked_up(self, result: str) -> None:
        """Count a look-up in the cache of answers: "hit" or "miss"."""
        self._cached_answers.values[result,] += 1

    def limit_refused(self, scope: str, measure: str) -> None:
        """Count a call that a limit had no room for."""
        self._limit_refusals.values[scope, measure] += 1

    def loop_lag(self, seconds: float) -> None:
        """Record how late the event loop woke up."""
        self._lag.observe(seconds)

    def call_ended(self, record: CallRecord) -> None:
        """Count a call for an answer that is over."""
        model, provider = record.model, record.provider
        self._calls.values[model, provider, record.outcome, record.error_code or "", record.action or ""] += 1
        if record.upstream_seconds is not None:
            self._upstream_seconds.observe(record.upstream_seconds, (provider,))
        for passed_over in record.passed_over:
            self._passed_over.values[passed_over] += 1
        charged = record.charged
        if charged is not None:
            self._tokens.values[model, "prompt"] += charged.prompt_tokens
            self._tokens.values[model, "completion"] += charged.completion_tokens
            if charged.unit is not None:
                self._units.values[model, charged.unit] += charged.amount
        if record.dropped:
            self._dropped.values[model,] += record.dropped
        if record.tools_left_out:
            self._tools_left_out.values[model,] += record.tools_left_out

    def timing(self, trace: Trace) -> Trace:
        """Return a `Trace` that opens the spans of `trace`, times each and counts its failures."""
        if trace is no_trace:
            return partial(_TimedStep, self._step_seconds, self._step_failures)
        return partial(_TracedStep, self._step_seconds, self._step_failures, trace)

    def read(self) -> Sequence[Numbers | Histogram]:
        """All metrics, with the state of this moment in them."""
        state = self.read_state()
        for name in state.keys() - self._state.keys():
            self._state[name] = self._gauge(name, "A number reported by the provider", "", ("of",))
        for name, gauge in self._state.items():
            gauge.values.clear()
            gauge.values.update({(of,): value for of, value in state.get(name, {}).items()})
        return self.instruments


class _TimedStep:
    """A step of a call, timed: a context manager."""

    __slots__ = ("_failures", "_name", "_seconds", "_started")

    def __init__(self, seconds: Histogram, failures: Counter, name: str, /) -> None:
        self._seconds = seconds
        self._failures = failures
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._failures.values[self._name, _code(error)] += 1
        self._seconds.observe(time.perf_counter() - self._started, (self._name,))


class _TracedStep(_TimedStep):
    """A step of a call, timed and traced."""

    __slots__ = ("_span",)

    def __init__(self, seconds: Histogram, failures: Counter, trace: Trace, name: str, /) -> None:
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


def _code(error: BaseException) -> str:
    """Return a name from a bounded set."""
    if isinstance(error, GatewayError):
        return error.code or ""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"  # the client has left, or the time for the whole call is over
    return "timeout" if isinstance(error, TimeoutError) else "internal_error"
