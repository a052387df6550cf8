"""Traces, as a real collector would get them."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from simulator.live import LiveSimulator
from tests import redis_server as servers
from tests.conftest import StartGateway
from tests.live import ALICE_KEY
from tests.redis_server import RedisServer

shared_redis, redis_server = servers.shared_redis, servers.redis_server

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[tuple[str, SimpleQueue[Any]]]:
    """Takes OTLP over HTTP; its address, and the spans that came."""
    spans: SimpleQueue[Any] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        spans.put(span)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """No lines among the tests' own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()
        thread.join()


def test_a_request_s_stretches_of_time_reach_the_collector(
    site: LiveSimulator,
    start_gateway: StartGateway,
    collector: tuple[str, SimpleQueue[Any]],
    redis_server: RedisServer,
) -> None:
    """Request, session store and upstream are spans of the client's own trace, with status and without texts."""
    endpoint, spans = collector
    with (
        start_gateway(tracing_endpoint=endpoint, session_store_url=redis_server.url) as gateway,
        gateway.client() as http,
    ):
        body = {"user": "ada", "messages": [{"role": "user", "content": "a secret text"}]}
        headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        assert http.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    received = [spans.get_nowait() for _ in range(spans.qsize())]
    own = {span.name: span for span in received if span.trace_id.hex() == TRACE_ID}
    assert {"request", "session.take", "upstream", "session.save"} <= own.keys()
    assert own["upstream"].parent_span_id == own["request"].span_id
    attributes = {entry.key: entry.value for entry in own["request"].attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["http.route"].string_value == "/v1/chat/completions"
    assert "nonce" in {span.name for span in received}
    assert not any(secret in str(received) for secret in ("secret text", ALICE_KEY, *site.site.issued_nonces))
