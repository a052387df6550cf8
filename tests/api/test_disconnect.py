"""Clients that leave, over real sockets."""

import asyncio
import io
import json
from queue import SimpleQueue

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import WAIT_SECONDS, LiveGateway, gateway_for


async def other_tasks() -> set[str]:
    """The names of what runs in the gateway besides its server and its background work."""
    lasting = ("LifespanOn.main", "LoopLag.watch", "Server.serve", "keep_fresh", "LiveGateway.run")
    tasks = (task.get_coro() for task in asyncio.all_tasks())
    names = {getattr(coro, "__qualname__", "?") for coro in tasks}
    return {name for name in names if not any(part in name for part in lasting)}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_answer_cancels_the_upstream_call(
    site: LiveSimulator, gateway: LiveGateway, stream: bool
) -> None:
    """In both modes the site sees its client go as soon as ours has gone, and nothing is left running."""
    site.site.update(failure="hang")
    connection = gateway.send(stream=stream)
    assert site.site.wait_for(lambda counters: counters.in_flight == 1)
    connection.close()
    assert site.site.wait_for(lambda counters: counters.abandoned == 1)
    assert gateway.run(other_tasks) == set()


def test_a_client_that_leaves_an_opened_stream_cancels_the_upstream_call(
    site: LiveSimulator, start_gateway: StartGateway
) -> None:
    """After the first byte (a heartbeat) the same holds."""
    site.site.update(failure="hang")
    with start_gateway(stream_grace_seconds=0.01, heartbeat_seconds=0.01) as gateway:
        connection = gateway.send(stream=True)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        connection.close()
        assert site.site.wait_for(lambda counters: counters.abandoned == 1)
        assert gateway.run(other_tasks) == set()


def test_a_client_that_leaves_the_queue_frees_its_place(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """A request that still waits for a slot ends with its client: the next one in the row is served."""
    site.site.update(failure="hang")
    with start_gateway(upstream_concurrency=1) as gateway:
        first = gateway.send()
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        second = gateway.send()
        second.close()
        site.site.update(failure=None)
        first.close()
        with gateway.client() as http:
            response = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert response.status_code == 200


def test_the_turn_is_kept_when_the_client_leaves_while_it_is_typed_out(
    site: LiveSimulator, start_gateway: StartGateway
) -> None:
    """Once the site has answered, the session remembers the turn even if the client doesn't wait for its text."""
    site.site.update(reply="A long answer. " * 200)
    settings = {"typing_delay_seconds": 5, "typing_max_seconds": 1000}
    with start_gateway(**settings) as gateway, gateway.client() as http:
        connection = gateway.send(stream=True, user="ada")
        with connection.makefile("rb") as lines:
            assert any(b'"content":"A long' in line for line in lines)
        connection.close()
        session = http.get("/v1/sessions/ada").json()
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"]
    assert session["messages"][1]["content"] == "A long answer. " * 200


def test_an_abandoned_request_leaves_its_session_as_it_was(site: LiveSimulator, gateway: LiveGateway) -> None:
    """A turn that was never answered is not remembered, and the session is free for the next one."""
    with gateway.client() as http:
        first = {"user": "ada", "messages": [{"role": "user", "content": "My name is Ada."}]}
        assert http.post("/v1/chat/completions", json=first).status_code == 200
        site.site.update(failure="hang")
        connection = gateway.send(user="ada")
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        connection.close()
        assert site.site.wait_for(lambda counters: counters.abandoned == 1)
        site.site.update(failure=None)
        assert http.get("/v1/sessions/ada").json()["message_count"] == 2
        again = {"user": "ada", "messages": [{"role": "user", "content": "What is my name?"}]}
        answer = http.post("/v1/chat/completions", json=again)
    assert "Ada" in answer.json()["choices"][0]["message"]["content"]


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_fault_of_ours(site: LiveSimulator) -> None:
    """Half a body and then nothing is logged as a request that its client closed, not as an error."""
    log = QueueOfStatuses()
    with gateway_for(site, log) as gateway:
        gateway.send_raw(b'{"messages": [{"role"', 1000).close()
        assert log.statuses.get(timeout=WAIT_SECONDS) == 499


class QueueOfStatuses(io.StringIO):
    """A log that hands on the status of each request in it."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: SimpleQueue[object] = SimpleQueue()

    def write(self, text: str) -> int:
        line = json.loads(text)
        if line["event"] == "request":
            self.statuses.put(line["status"])
        return len(text)


def test_a_body_that_never_comes_holds_up_nobody(gateway: LiveGateway) -> None:
    """A connection that announces a body and stays silent doesn't keep others from being served."""
    with gateway.send_raw(b"{", 1000):
        assert httpx.get(f"{gateway.base_url}/health", trust_env=False).status_code == 200
