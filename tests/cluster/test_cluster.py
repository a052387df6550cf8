"""Several workers behind a real nginx."""

import json
import os
import secrets
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from simulator.live import LiveSimulator, running
from tests.cluster.running import Cluster, cluster
from tests.cluster.test_nginx_config import make_certificate
from tests.live import ALICE_KEY

SECURITY_HEADERS = {"x-content-type-options", "x-frame-options", "referrer-policy"}


@pytest.fixture(scope="module")
def shared_site() -> Iterator[LiveSimulator]:
    """One site for the tests that need nothing special."""
    with running() as simulator:
        yield simulator


@pytest.fixture(scope="module", params=["ip", "session"])
def sticky(request: pytest.FixtureRequest, shared_site: LiveSimulator) -> Iterator[Cluster]:
    """Three workers with memory sessions, under each kind of stickiness."""
    with cluster(shared_site.page_url, STICKY=request.param) as running_cluster:
        yield running_cluster


@pytest.fixture(scope="module")
def three(shared_site: LiveSimulator) -> Iterator[Cluster]:
    """Three workers, sticky by session."""
    with cluster(shared_site.page_url, STICKY="session", MAX_BODY_BYTES="65536") as running_cluster:
        yield running_cluster


def chat(client: httpx.Client, text: str, **fields: object) -> httpx.Response:
    headers = {"X-Session-Id": str(fields.pop("session"))} if "session" in fields else {}
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("by", ["session", "user"])
def test_sessions_stay_on_the_worker_that_knows_them(sticky: Cluster, by: str) -> None:
    """Twenty sessions of a client, each on new connections, are all continued, and can be read."""
    for number in range(20):
        with sticky.client() as first, sticky.client() as second:
            fields: dict[str, object] = {by: f"{by}-{number}"}
            assert chat(first, "My name is Ada.", **fields).headers["x-session-action"] == "new"
            assert chat(second, "What is my name?", **fields).headers["x-session-action"] == "continued"
            assert second.get(f"/v1/sessions/{by}-{number}").status_code == 200


def test_sessions_are_spread_over_the_workers(three: Cluster) -> None:
    """Sticky by session, one client's sessions keep all workers busy."""
    with three.client() as client:
        for number in range(30):
            assert chat(client, "Hi", session=f"spread-{number}").status_code == 200
    three.wait_for("request", path="/v1/chat/completions")
    workers = {line.get("worker") for line in three.lines if line.get("event") == "request"}
    assert {"1", "2", "3"} <= workers


def test_a_stream_comes_through_piece_by_piece(shared_site: LiveSimulator) -> None:
    """The first piece is there while the answer is still being typed: nothing on the way buffers."""
    with (
        cluster(shared_site.page_url, workers=1, TYPING_DELAY_SECONDS="30", TYPING_MAX_SECONDS="1000") as slow,
        slow.client() as client,
        client.stream("POST", "/v1/chat/completions", json=_stream()) as response,
    ):
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        first, second = json.loads(next(lines)[6:]), json.loads(next(lines)[6:])
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert second["choices"][0]["delta"]["content"]


def test_a_client_that_leaves_is_seen_by_the_site(shared_site: LiveSimulator, three: Cluster) -> None:
    """Through nginx too, a closed connection cancels the upstream call."""
    site = shared_site.site
    site.update(failure="hang", failure_times=1)
    before = site.counters
    with _connect(three) as connection:
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
        connection.sendall(_head(f"Content-Length: {len(body)}") + body.encode())
        assert site.wait_for(lambda counters: counters.in_flight == before.in_flight + 1)
    assert site.wait_for(lambda counters: counters.abandoned == before.abandoned + 1)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GARBAGE\x00\x01\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413, "request_too_large"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
    ],
)
def test_nginx_s_own_errors_are_in_the_envelope(three: Cluster, raw: bytes, status: int, code: str) -> None:
    """What nginx refuses by itself is said in the API's form, with a request id."""
    with _connect(three) as connection:
        connection.sendall(raw)
        response = httpx_response(connection)
    assert response.status_code == status
    assert response.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }
    assert "request-id" not in response.headers
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get_list("x-request-id") != []
    assert response.headers.keys() >= SECURITY_HEADERS


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/v1/chat/completions?key=hidden", "/v1/chat/completions"),
        ("/v1/sessions/someone%40hidden", "/v1/sessions/…"),
        ("/v1/%73essions/hidden", "…"),
        ("/v1//sessions/hidden", "/v1/sessions/…"),
        ("/x/../v1/sessions/hidden", "/v1/sessions/…"),
    ],
)
def test_nginx_logs_what_was_asked_for_where_it_refuses(three: Cluster, path: str, logged: str) -> None:
    """The line has the request's own method and path, not those of the error, and no session id in any disguise."""
    with _connect(three) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {(name := secrets.token_hex(8))}\r\n"
        connection.sendall(f"{head}Content-Length: 2000000\r\n\r\n".encode())
        assert httpx_response(connection).status_code == 413
    line = three.wait_for(None, request_id=name)
    assert (line["method"], line["path"], line["status"]) == ("PUT", logged, 413)
    assert "hidden" not in json.dumps(line)


def test_every_answer_has_the_security_headers_once(three: Cluster) -> None:
    """Those of the app, of nginx's own 404s and of what it hides; each with one request id."""
    with three.client() as client:
        for path, status in (
            ("/health", 200),
            ("/nothing", 404),
            ("/metrics", 404),
            ("/metrics%0A", 404),
            ("/_error/429", 404),
        ):
            response = client.get(path)
            assert (response.status_code, len(response.headers.get_list("x-request-id"))) == (status, 1)
            assert response.headers.keys() >= SECURITY_HEADERS
            assert "retry-after" not in response.headers
            assert status == 200 or response.json()["error"]["code"] == "unknown_url"


def test_nginx_s_own_errors_under_messages_are_anthropic_s(three: Cluster) -> None:
    """Below /v1/messages nginx speaks Anthropic's dialect, down to the header with the request's id."""
    raw = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: x\r\nX-Request-ID: my-request-0002\r\n"
    with _connect(three) as connection:
        connection.sendall(raw + b"Content-Length: 2000000\r\n\r\n")
        response = httpx_response(connection)
    assert response.status_code == 413
    assert response.json() == {
        "type": "error",
        "error": {
            "message": "The request body is larger than 65536 bytes.",
            "type": "request_too_large",
            "details": {"error_code": "request_too_large"},
        },
        "request_id": "my-request-0002",
    }
    assert response.headers["request-id"] == response.headers["x-request-id"] == "my-request-0002"


def test_the_app_s_own_errors_pass_untouched(three: Cluster) -> None:
    """nginx doesn't put its words in place of the app's, and both agree on the request id."""
    with three.client(key="wrong-key-1234") as client:
        response = client.get("/v1/models", headers={"X-Request-ID": "my-request-0001"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["x-request-id"] == "my-request-0001"
    line = three.wait_for("request", request_id="my-request-0001")
    assert line["status"] == 401


def test_too_many_requests_are_a_429_that_says_when_to_come_back(shared_site: LiveSimulator) -> None:
    """The rate limit counts for each key, and another key isn't touched by it."""
    settings = {"REQUEST_RATE": "1r/m", "REQUEST_BURST": "2"}
    with (
        cluster(shared_site.page_url, workers=1, **settings) as limited,
        limited.client() as alice,
        limited.client(key="sk-bob-b81d03e65fa9") as bob,
    ):
        responses = [alice.get("/v1/models") for _ in range(5)]
        assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
        assert responses[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert responses[-1].headers["retry-after"] == "1"
        assert bob.get("/v1/models").status_code == 200
        refused = alice.post("/v1/messages", json={})
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        del alice.headers["authorization"]
        carols = [alice.get("/v1/models", headers={"x-api-key": "sk-carol"}).status_code for _ in range(4)]
        assert carols == [401, 401, 401, 429]


def test_half_a_request_does_no_harm(three: Cluster) -> None:
    """A connection that stops in the middle of its body keeps nobody from being served."""
    with _connect(three) as connection, three.client() as client:
        connection.sendall(_head("Content-Length: 1000") + b"{")
        assert client.get("/health").status_code == 200


def test_no_key_is_in_any_log(three: Cluster) -> None:
    """Neither nginx's access log nor the workers' lines hold an API key or a session id."""
    with three.client() as client:
        chat(client, "Hi", session="secret-session-name")
        client.get("/v1/sessions/secret-session-name", headers={"X-Request-ID": "the-last-line-1"})
    three.wait_for("request", request_id="the-last-line-1")
    text = json.dumps(three.lines)
    assert "/v1/sessions/" in text
    assert ALICE_KEY not in text
    assert "secret-session-name" not in text


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(shared_site: LiveSimulator) -> None:
    """After kill -9 of one worker requests are answered by the others, until it is back."""
    with cluster(shared_site.page_url) as killed, killed.client() as client:
        name = f"worker-{chat_worker(killed, client)}"
        os.kill(killed.pid_of(name), signal.SIGKILL)
        killed.wait_for("process_died", name=name)
        statuses = {chat(client, "Hi").status_code for _ in range(20)}
        assert statuses == {200}
        killed.wait_for("process_started", name=name)


def test_a_rolling_restart_loses_no_request(shared_site: LiveSimulator) -> None:
    """SIGHUP replaces all workers one by one under load; every request is answered with 200."""
    with cluster(shared_site.page_url, STICKY="session") as rolling:
        stop = threading.Event()

        def load(number: int) -> set[int]:
            statuses: set[int] = set()
            with rolling.client() as client:
                while not stop.is_set():
                    statuses.add(chat(client, "Hi", user=f"{number}-{len(statuses)}").status_code)
            return statuses

        with ThreadPoolExecutor(8) as pool:
            loads = [pool.submit(load, number) for number in range(8)]
            try:
                rolling.process.send_signal(signal.SIGHUP)
                rolling.wait_for("workers_replaced")
            finally:
                stop.set()
            assert set().union(*(future.result() for future in loads)) == {200}


def test_https_with_certificate_files(shared_site: LiveSimulator, tmp_path: Path) -> None:
    """TLS_CERTIFICATE and its key make nginx serve https, with a header that keeps browsers there."""
    certificate, key = make_certificate(tmp_path)
    files = {"TLS_CERTIFICATE": str(certificate), "TLS_CERTIFICATE_KEY": str(key)}
    trust = ssl.create_default_context(cafile=str(certificate))
    with cluster(shared_site.page_url, workers=1, scheme="https", **files) as tls, tls.client(verify=trust) as client:
        response = chat(client, "Hi")
    assert response.status_code == 200
    assert response.headers["strict-transport-security"]


def _stream() -> dict[str, object]:
    return {"stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def _head(*headers: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", f"Authorization: Bearer {ALICE_KEY}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _connect(target: Cluster) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target.port), timeout=20)


def httpx_response(connection: socket.socket) -> httpx.Response:
    """The answer on a raw socket."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name] = value.strip()
        return httpx.Response(status, headers=headers, content=stream.read(int(headers["Content-Length"])))


def chat_worker(target: Cluster, client: httpx.Client) -> str:
    """The worker that answers this client."""
    client.get("/v1/models", headers={"X-Request-ID": "which-worker-0001"})
    return str(target.wait_for("request", request_id="which-worker-0001")["worker"])
