"""What Prometheus gets to see."""

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def metrics(client: httpx.Client) -> dict[str, float]:
    """The samples, by name and labels as they are written."""
    response = client.get("/metrics")
    assert response.status_code == 200
    lines = [line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_requests_calls_and_tokens_are_counted(client: httpx.Client, site: LiveSimulator) -> None:
    """Each answered and failed call shows up with its model, outcome and session action."""
    assert client.post("/v1/chat/completions", json={**HELLO, "user": "ada"}).status_code == 200
    site.site.update(failure="html")
    assert client.post("/v1/chat/completions", json=HELLO).status_code == 502
    samples = metrics(client)
    model = 'model="kimi-k2-instruct-0905"'
    call = f'kimi_calls_total{{error=%s,{model},outcome=%s,provider="kimi-web",session=%s}}'
    assert samples[call % ('""', '"completed"', '"new"')] == 1
    assert samples[call % ('"site_changed"', '"failed"', '"stateless"')] == 1
    assert samples[f'kimi_tokens_total{{kind="prompt",{model}}}'] == 2
    route = 'kimi_http_requests_total{method="POST",route="/v1/chat/completions",status="%s"}'
    assert (samples[route % 200], samples[route % 502]) == (1, 1)
    assert samples['kimi_upstream_seconds_count{provider="kimi-web"}'] == 1


def test_tools_that_were_left_out_are_counted(client: httpx.Client) -> None:
    """Each of those that the model wasn't told of, by the model."""
    parameters = {"type": "object", "properties": {"x" * 900: {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("one", "two")]
    assert client.post("/v1/chat/completions", json={**HELLO, "tools": tools}).status_code == 200
    assert client.post("/v1/chat/completions", json=HELLO).status_code == 200
    assert metrics(client)['kimi_tools_left_out_total{model="kimi-k2-instruct-0905"}'] == 2


def test_labels_are_bounded_whatever_clients_send(client: httpx.Client) -> None:
    """Unknown addresses, methods, models and session ids make no labels of their own."""
    for number in range(5):
        client.get(f"/nothing/{number}")
        client.request(f"ODD{number}", "/v1/models")
        client.get(f"/v1/sessions/secret-{number}")
        client.post("/v1/chat/completions", json={**HELLO, "model": f"model-{number}"})
    text = client.get("/metrics").text
    assert 'route="unknown"' in text
    assert 'route="/v1/sessions/{session_id:path}"' in text
    assert not any(word in text for word in ("nothing", "ODD", "secret", "model-1"))


def test_the_state_of_the_moment_is_shown(client: httpx.Client, site: LiveSimulator) -> None:
    """Nonce, breaker, queue, slots and store are gauges read when Prometheus asks, each with its own help text."""
    client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    samples = metrics(client)
    assert samples['kimi_provider_nonce_fetches{of="kimi-web"}'] == site.site.counters.pages
    assert samples['kimi_provider_breaker_closed{of="kimi-web"}'] == 1
    assert samples['kimi_provider_queue_depth{of="kimi-web"}'] == 0
    assert samples['kimi_provider_slots_free{of="kimi-web"}'] == 32
    assert samples['kimi_session_store_up{of="store"}'] == 1
    assert "A number reported by the provider" not in client.get("/metrics").text


def test_the_time_to_the_first_text_is_taken_of_streams_that_have_one(
    client: httpx.Client, site: LiveSimulator
) -> None:
    """One stream that is answered counts once; one that fails and a whole answer don't."""
    client.post("/v1/chat/completions", json=HELLO)
    client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    site.site.update(failure="html")
    client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert metrics(client)["kimi_stream_first_text_seconds_count"] == 1


def test_every_try_at_the_site_is_timed_and_its_failures_are_counted(client: httpx.Client, site: LiveSimulator) -> None:
    """A failure that the client never sees, because it was tried again, is seen here; page fetches are counted, too."""
    site.site.update(failure="server_error", failure_times=1)
    assert client.post("/v1/chat/completions", json={**HELLO, "user": "ada"}).status_code == 200
    samples = metrics(client)
    assert samples['kimi_step_seconds_count{step="upstream"}'] == 2
    assert samples['kimi_step_failures_total{error="upstream_unavailable",step="upstream"}'] == 1
    assert samples['kimi_step_seconds_count{step="nonce"}'] == 1
    assert samples['kimi_sessions{of="store"}'] == 1


def test_waiting_in_the_queue_is_timed(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """Whoever has to wait for a slot, and only they, are in the histogram of the step; so is one who waits in vain."""
    site.site.update(failure="hang", failure_times=1)
    with start_gateway(upstream_concurrency=1, upstream_queue_timeout=0.1) as gateway, gateway.client() as http:
        with gateway.send():
            assert site.site.wait_for(lambda counters: counters.in_flight == 1)
            assert http.post("/v1/chat/completions", json=HELLO).status_code == 503
        samples = metrics(http)
    assert samples['kimi_step_seconds_count{step="queue"}'] == 1
    assert samples['kimi_step_failures_total{error="timeout",step="queue"}'] == 1


def test_heartbeats_are_counted(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """A stream that was kept open by comments shows in the metrics."""
    site.site.update(failure="hang")
    settings = {"stream_grace_seconds": 0.01, "request_timeout": 0.3, "heartbeat_seconds": 0.02}
    with start_gateway(**settings) as gateway, gateway.client() as http:
        http.post("/v1/chat/completions", json={**HELLO, "stream": True})
        assert metrics(http)["kimi_heartbeats_total"] >= 2


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        ("sk-metrics-0f1e2d3c", "/metrics", 200),
        ("sk-metrics-0f1e2d3c", "/v1/models", 401),
        (ALICE_KEY, "/metrics", 200),
        ("wrong", "/metrics", 401),
    ],
)
def test_the_metrics_key_opens_the_metrics_only(start_gateway: StartGateway, key: str, path: str, status: int) -> None:
    """Prometheus needs no key that could chat, and nobody reads the metrics without one."""
    with start_gateway(metrics_key="sk-metrics-0f1e2d3c") as gateway:
        assert read(gateway, path, key) == status


def read(gateway: LiveGateway, path: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(gateway.base_url + path, headers=headers, trust_env=False).status_code
