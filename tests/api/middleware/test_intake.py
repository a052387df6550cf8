"""Requests that are too large, and a worker that has too much to do."""

from collections.abc import Iterator

import httpx
import pytest

from app.observe.loop_lag import LoopLag
from tests.conftest import StartGateway

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def test_too_many_headers_are_refused(client: httpx.Client) -> None:
    """More header lines than MAX_HEADERS is a 431 in the envelope."""
    response = client.get("/health", headers={f"x-header-{number}": "x" for number in range(120)})
    assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")
    assert response.headers["x-request-id"]


def test_too_many_messages_are_refused(start_gateway: StartGateway) -> None:
    """More messages than MAX_MESSAGES is a 400 that names the field and the setting."""
    with start_gateway(max_messages=3) as gateway, gateway.client() as http:
        accepted = http.post("/v1/chat/completions", json={"messages": HELLO["messages"] * 3})
        refused = http.post("/v1/chat/completions", json={"messages": HELLO["messages"] * 4})
    assert (accepted.status_code, refused.status_code) == (200, 400)
    assert refused.json()["error"]["param"] == "messages"
    assert "MAX_MESSAGES" in refused.json()["error"]["message"]


def test_a_body_of_a_million_brackets_is_refused_without_harm(client: httpx.Client) -> None:
    """JSON nested beyond all sense is a 400, and the next request is served."""
    response = client.post("/v1/chat/completions", content=b'{"messages":' + b"[" * 900_000)
    assert response.status_code == 400
    assert client.post("/v1/chat/completions", json=HELLO).status_code == 200


def test_calls_are_shed_while_the_event_loop_is_late(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late loop means 503 with Retry-After for new calls, while health and models are still answered."""

    async def late(self: LoopLag) -> None:
        self.latest = 5.0

    monkeypatch.setattr(LoopLag, "watch", late)
    with start_gateway(max_loop_lag_seconds=1) as gateway, gateway.client() as http:
        shed = http.post("/v1/chat/completions", json=HELLO)
        others = [http.get(path).status_code for path in ("/health", "/v1/models")]
    assert (shed.status_code, shed.json()["error"]["code"]) == (503, "gateway_overloaded")
    assert int(shed.headers["retry-after"]) >= 1
    assert others == [200, 200]


def test_a_body_that_grows_too_large_is_refused(start_gateway: StartGateway) -> None:
    """One that comes in chunks, and so doesn't say how large it is, is read up to MAX_BODY_BYTES and not further."""

    def pieces(number: int) -> Iterator[bytes]:
        yield b'{"messages":[{"role":"user","content":"Hello"}],"metadata":"'
        for _ in range(number):
            yield b"x" * 1000
        yield b'"}'

    with start_gateway(max_body_bytes=10_000) as gateway, gateway.client() as http:
        statuses = [http.post("/v1/chat/completions", content=pieces(number)).status_code for number in (5, 20)]
    assert statuses == [200, 413]
