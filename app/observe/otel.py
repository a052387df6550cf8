"""Traces for OpenTelemetry. An optional extra (requirements-tracing.txt), imported only if TRACING_ENDPOINT is set."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind


class Tracing:
    """Sends spans to a collector in batches, from a background thread.

    Args:
        endpoint: The collector's address for OTLP over HTTP, such as `http://localhost:4318/v1/traces`.
        worker_id: The worker that the spans are from.
    """

    def __init__(self, endpoint: str, worker_id: str) -> None:
        resource = Resource.create({"service.name": "kimi-ai-2api", "service.instance.id": worker_id})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("kimi-ai-2api")

    def span(self, name: str, /) -> AbstractContextManager[object]:
        """Open a span within the running request. See `Trace`."""
        # Exceptions are not recorded: their texts may quote the upstream.
        return self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=True)

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Open the span of a whole request. It continues the client's trace if there is a `traceparent` header."""
        parent = propagate.extract(headers)
        return self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER, record_exception=False)

    def close(self) -> None:
        """Send the spans that are left, and stop."""
        self._provider.shutdown()
