"""Several workers with their sessions in a real Redis."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from simulator.live import LiveSimulator, running
from tests.cluster.running import Cluster, cluster
from tests.live import ALICE_KEY
from tests.redis_server import RedisServer


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that keeps what it has over a restart."""
    server = RedisServer(tmp_path, persistent=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site() -> Iterator[LiveSimulator]:
    """A site that answers at once."""
    with running() as simulator:
        yield simulator


@pytest.fixture
def shared(site: LiveSimulator, redis_server: RedisServer) -> Iterator[Cluster]:
    """Three workers that share their sessions, and are handed requests by the client's address alone."""
    site.site.update(char_limit=0)
    with cluster(
        site.page_url, SESSION_STORE_URL=redis_server.url, SESSION_LOCK_TTL="2", CONTEXT_MAX_LENGTH="100000"
    ) as running_cluster:
        yield running_cluster


def workers(shared: Cluster) -> list[httpx.Client]:
    """A client for each worker, past nginx."""
    ports = sorted({line["port"] for line in shared.lines if line.get("event") == "process_started" and line["port"]})
    headers = {"Authorization": f"Bearer {ALICE_KEY}"}
    return [
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False)
        for port in ports
    ]


def say(client: httpx.Client, session: str, text: str, **headers: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}]}
    return client.post("/v1/chat/completions", json=body, headers={"X-Session-Id": session, **headers})


def test_any_worker_continues_any_session(shared: Cluster) -> None:
    """What one worker was told, the next one knows."""
    first, second, third = workers(shared)
    with first, second, third:
        assert say(first, "s1", "My name is Ada.").headers["x-session-action"] == "new"
        answer = say(second, "s1", "What is my name?")
        assert answer.headers["x-session-action"] == "continued"
        assert "Ada" in answer.json()["choices"][0]["message"]["content"]
        assert third.get("/v1/sessions/s1").json()["message_count"] == 4
        assert third.delete("/v1/sessions/s1").status_code == 200
        assert first.get("/v1/sessions/s1").status_code == 404


def test_concurrent_requests_through_different_workers_are_all_kept(site: LiveSimulator, shared: Cluster) -> None:
    """Twelve requests on one session, spread over three workers, come after each other and none is lost."""
    site.site.update(latency_s=0.02)
    clients = workers(shared)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: say(clients[n % 3], "s1", f"turn {n}"), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert site.site.counters.max_in_flight == 1
    messages = clients[0].get("/v1/sessions/s1").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 12
    assert sorted(message["content"] for message in messages[::2]) == sorted(f"turn {n}" for n in range(12))
    for client in clients:
        client.close()


def test_a_killed_worker_takes_no_session_with_it(site: LiveSimulator, shared: Cluster) -> None:
    """Under load, kill -9 of a worker loses no answered turn and doubles none; its sessions go on elsewhere."""
    site.site.update(latency_s=0.02)
    killed = threading.Event()

    def talk(number: int) -> list[str]:
        """The turns of one session that were answered; a request that fails is sent again, as SDKs do."""
        told = []
        with shared.client() as client:
            for turn in range(12):
                text = f"session {number} turn {turn}"
                for attempt in range(50):
                    try:
                        answer = say(client, f"s{number}", text, **{"x-stainless-retry-count": str(attempt)})
                    except httpx.TransportError:
                        continue
                    if answer.status_code == 200:
                        told.append(text)
                        break
                if turn == 3 and number == 0:
                    os.kill(shared.pid_of("worker-1"), signal.SIGKILL)
                    os.kill(shared.pid_of("worker-2"), signal.SIGKILL)
                    killed.set()
        return told

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(talk, range(6)))
    assert killed.is_set()
    with shared.client() as client:
        for number, turns in enumerate(told):
            messages = client.get(f"/v1/sessions/s{number}").json()["messages"]
            assert len(turns) == 12
            assert [message["content"] for message in messages[::2]] == turns


def test_while_redis_is_away_only_sessions_that_need_it_wait(shared: Cluster, redis_server: RedisServer) -> None:
    """Stateless and full-history requests are answered, a next turn gets a 503, and the memory is back afterwards."""
    history = [
        {"role": "user", "content": "My name is Eve."},
        {"role": "assistant", "content": "Hello Eve."},
        {"role": "user", "content": "What is my name?"},
    ]
    with shared.client() as client:
        assert say(client, "s1", "My name is Ada.").status_code == 200
        redis_server.stop()
        refused = say(client, "s1", "What is my name?")
        full = client.post("/v1/chat/completions", json={"messages": history}, headers={"X-Session-Id": "s1"})
        alone = client.post("/v1/chat/completions", json={"messages": history[:1]})
        worker = workers(shared)[0]
        with worker:
            assert say(worker, "s1", "Hello?").status_code == 503
            ready, text = worker.get("/ready"), worker.get("/metrics").text
        redis_server.start()
        for _ in range(200):
            again = say(client, "s1", "What is my name?")
            if again.status_code == 200:
                break
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "session_store_unavailable")
    assert (full.status_code, alone.status_code) == (200, 200)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert re.search(r'^kimi_session_store_up\{of="store"\} 0.0$', text, re.MULTILINE)
    assert "Ada" in again.json()["choices"][0]["message"]["content"]
