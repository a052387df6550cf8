"""Traces for OpenTelemetry: an optional extra (requirements-tracing.txt), imported only when it is switched on."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind


class Tracing:
    """Sends spans to a collector in batches, from a thread of its own.

    Args:
        endpoint: Where the collector takes OTLP over HTTP, as in `http://localhost:4318/v1/traces`.
        worker_id: Which worker this is.
    """

    def __init__(self, endpoint: str, worker_id: str) -> None:
        resource = Resource.create({"service.name": "kimi-ai-2api", "service.instance.id": worker_id})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("kimi-ai-2api")

    def span(self, name: str, /) -> AbstractContextManager[object]:
        """A stretch of time within the running request. See `Trace`."""
        # Not the exception's text: it may quote what the site said.
        return self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=True)

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """The span of a whole request, continuing the caller's trace if it sent a `traceparent`."""
        parent = propagate.extract(headers)
        return self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER, record_exception=False)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
