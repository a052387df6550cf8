"""What nginx decides by itself: limits, refusals, logs."""

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.edge import BEHIND_A_PROXY, SECONDS, Edge, Worker, edge, read_response
from tests.cluster.test_nginx_config import make_certificate
from tests.live import until

SECURITY_HEADERS = {"x-content-type-options", "x-frame-options", "referrer-policy"}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    running = Worker()
    yield running
    running.stop()


@pytest.fixture
def limited(worker: Worker, tmp_path: Path) -> Iterator[Edge]:
    """Three requests with one key, six from one address; more would come so slowly that no test sees them."""
    few = {"request_rate": "1r/m", "request_burst": 2, "address_rate": "1r/m", "address_burst": 5}
    with edge(tmp_path, worker.address, **few) as running:
        yield running


@pytest.fixture(scope="module")
def front(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A gateway that lets small bodies in."""
    with edge(tmp_path_factory.mktemp("front"), worker.address, max_body_bytes=1024, read_timeout=1) as running:
        yield running


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "other",
    [
        {"Authorization": "bearer key-1"},
        {"Authorization": "BEARER    key-1  "},
        {"Authorization": "Bearer\tkey-1"},
        {"Authorization": "Bearer bearer key-1"},
        {"Authorization": "key-1"},
        {"X_Api_Key": "key-1"},
        {"X_API_KEY": " key-1 "},
        {"Api_Key": "key-1"},
        {"X_Goog_Api_Key": "key-1"},
        {"Authorization": "Bearer key-1", "X_Api_Key": "key-1"},
        {"X_Api_Key": "key-1", "Api_Key": "key-1"},
    ],
    ids=str,
)
def test_a_key_is_one_key_however_it_is_spelled(limited: Edge, other: Mapping[str, str]) -> None:
    """Every form in which the app accepts a key counts for the same limit."""
    assert limited.statuses(5, {"Authorization": "Bearer key-1"}, other) == [200, 200, 200, 429, 429]
    assert limited.statuses(1, {"Authorization": "Bearer key-2"}) == [200]


@pytest.mark.parametrize(
    "hiding",
    [
        {"Authorization": "Bearer made-up-{}", "X_Api_Key": "key-1"},
        {"X_Api_Key": "made-up-{}", "Api_Key": "key-1"},
        {"X_Api_Key": "made-up-{}", "X_Goog_Api_Key": "key-1"},
        {"Authorization": "Bearer another-{}", "X_Api_Key": "made-up-{}", "Api_Key": "key-1"},
        {"X_Api_Key": "key-1\r\nX-Api-Key: made-up-{}"},
        {"X_Api_Key": "key-1\r\nX-Api-Key: made-up-{}\r\nX-Api-Key: made-up-too-{}"},
    ],
    ids=str,
)
def test_made_up_keys_do_not_hide_a_true_one(limited: Edge, hiding: Mapping[str, str]) -> None:
    """The app takes whichever of several keys opens; a new one beside it with each request buys no more of them."""
    variants = [{name: value.format(number, number) for name, value in hiding.items()} for number in range(5)]
    assert limited.statuses(5, *variants) == [200, 200, 200, 429, 429]


def test_keys_have_limits_of_their_own(limited: Edge) -> None:
    """Whoever has used up one key may go on with another."""
    assert limited.statuses(4, {"X_Api_Key": "key-1"}) == [200, 200, 200, 429]
    assert limited.statuses(2, {"X_Api_Key": "key-2"}) == [200, 200]


def test_a_client_with_a_new_key_for_each_request_is_limited(limited: Edge) -> None:
    """Made-up keys are as many as one likes, but the client's address is one."""
    assert limited.statuses(8, *({"X_Api_Key": f"key-{number}"} for number in range(8))) == [200] * 6 + [429] * 2


@pytest.mark.parametrize(
    ("addresses", "statuses"),
    [
        (["192.0.2.1"] * 7, [200] * 6 + [429]),
        ([f"192.0.2.{number}" for number in range(8)], [200] * 8),
        ([f"2001:db8:0:1::{number:x}" for number in range(8)], [200] * 6 + [429] * 2),
        ([f"2001:db8:0:a{number:x}0a::1" for number in range(8)], [200] * 8),
    ],
    ids=["one IPv4", "many IPv4", "one IPv6 network", "many IPv6 networks"],
)
def test_behind_another_proxy_each_client_counts(
    worker: Worker, tmp_path: Path, addresses: list[str], statuses: list[int]
) -> None:
    """With REAL_IP the limit is that of the client that the other proxy names; of IPv6, that of its /64."""
    few = {"address_rate": "1r/m", "address_burst": 5}
    with edge(tmp_path, worker.address, replaced=BEHIND_A_PROXY, **few) as proxied:
        variants = [
            {"X_Forwarded_For": address, "X_Api_Key": f"key-{number}"} for number, address in enumerate(addresses)
        ]
        assert proxied.statuses(len(variants), *variants) == statuses


@pytest.mark.parametrize("path", ["/admin/v1/keys", "/admin", "/console/", "/admin/v1/requests/feed"])
def test_the_admin_api_isn_t_counted_by_key(limited: Edge, path: str) -> None:
    """Whoever looks after a gateway under load gets through; the limits of one address count there, too."""
    assert limited.statuses(4, {"X_Api_Key": "key-1"}) == [200, 200, 200, 429]
    answers = [limited.ask(path, X_Api_Key="key-1").status_code for _ in range(4)]
    assert answers == [200, 200, 200, 429]


def test_a_limit_that_was_reached_is_in_the_access_log(limited: Edge) -> None:
    """Nobody has to look for it in an error log."""
    limited.statuses(3, {"X_Api_Key": "key-1"})
    limited.ask(X_Api_Key="key-1", X_Request_ID="one-too-many")
    line = limited.line("one-too-many")
    assert (line["status"], line["limited_by"], line["worker"]) == (429, "rate", "")


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSALS = {
    "no HTTP": (b"GARBAGE\x00\x01\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET %s HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "two hosts": (b"GET %s HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
    "a bad line": (b"GET %s HTTP/x\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "a bad length": (b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: some\r\n\r\n", 400, "bad_request"),
    "a NUL": (b"GET %s HTTP/1.1\r\nHost: x\r\nX-Bad: \x00\r\n\r\n", 400, "bad_request"),
    "TRACE": (b"TRACE %s HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    "a large body": (b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413, "request_too_large"),
    "a long address": (b"GET %s?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
    "a long header": (b"GET %s HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a strange coding": (
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        501,
        "unsupported_transfer_encoding",
    ),
    "no answer": (b"GET %s?hangup HTTP/1.1\r\nHost: x\r\n\r\n", 502, "worker_unavailable"),
    "HTTP/2.0": (b"GET %s HTTP/2.0\r\nHost: x\r\n\r\n", 505, "unsupported_http_version"),
    "HTTP/9.1": (b"GET %s HTTP/9.1\r\nHost: x\r\n\r\n", 505, "unsupported_http_version"),
}


@pytest.mark.parametrize(("raw", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_in_openai_s_form(front: Edge, raw: bytes, status: int, code: str) -> None:
    """Whatever nginx refuses by itself has the API's error object, no matter how early it fails."""
    response = front.send(raw.replace(b"%s", b"/v1/chat/completions"))
    assert response.status_code == status
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert response.json() == {
        "error": {"message": message_of(response.json()), "type": kind, "param": None, "code": code}
    }
    assert_own_headers(response.headers)
    assert "request-id" not in response.headers


@pytest.mark.parametrize(("raw", "status", "code"), list(REFUSALS.values())[1:], ids=list(REFUSALS)[1:])
@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/messages/count_tokens"])
def test_a_refusal_below_messages_is_in_anthropic_s_form(
    front: Edge, raw: bytes, status: int, code: str, path: bytes
) -> None:
    """So it is for Anthropic's clients, as soon as there is an address."""
    response = front.send(raw.replace(b"%s", path))
    assert response.status_code == status
    body = response.json()
    assert body["type"] == "error"
    assert body["error"]["details"] == {"error_code": code}
    assert message_of(body)
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert_own_headers(response.headers)


@pytest.mark.parametrize(("raw", "status", "code"), list(REFUSALS.values())[1:], ids=list(REFUSALS)[1:])
def test_a_refusal_at_google_s_addresses_is_in_google_s_form(front: Edge, raw: bytes, status: int, code: str) -> None:
    """Status, its word, our code and the request's id."""
    response = front.send(raw.replace(b"%s", b"/v1beta/models/kimi:generateContent"))
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, status)
    assert error["status"].isupper()
    assert error["message"]
    [info] = error["details"]
    assert (info["reason"], info["metadata"]) == (code, {"requestId": response.headers["x-request-id"]})
    assert_own_headers(response.headers)


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/v1/models", {"X-Goog-Api-Key": "key"}, "gemini"),
        ("/v1/models", {"X-Goog-Api-Client": "sdk", "X-Api-Key": "key"}, "gemini"),
        ("/v1/models/kimi:streamGenerateContent?alt=sse", {}, "gemini"),
        ("/v1/messages", {"X-Goog-Api-Key": "key"}, "anthropic"),
        ("/elsewhere", {"X-Goog-Api-Key": "key"}, "gemini"),
        ("/v1/chat/completions", {"X-Goog-Api-Key": "key"}, "openai"),
        ("/v1betas", {}, "openai"),
        ("/v1/models", {"Anthropic-Version": "2023-06-01"}, "anthropic"),
        ("/v1/models", {"X-Api-Key": "key"}, "anthropic"),
        ("/v1/models", {}, "openai"),
        ("/elsewhere", {"Anthropic-Version": "2023-06-01"}, "anthropic"),
        ("/elsewhere", {"X-Api-Key": "key"}, "openai"),
        ("/v1/chat/completions", {"Anthropic-Version": "2023-06-01"}, "openai"),
        ("/v1/messagesque", {}, "openai"),
        ("http://gateway/v1/messages", {}, "anthropic"),
    ],
)
def test_the_dialect_is_that_of_the_app(front: Edge, path: str, headers: Mapping[str, str], dialect: str) -> None:
    """The address tells, and where it doesn't, the headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    response = front.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 2000000\r\n\r\n".encode())
    assert response.status_code == 413
    assert ("request_id" in response.json()) == (dialect == "anthropic")
    assert ("details" in response.json()["error"]) == (dialect in ("anthropic", "gemini"))


UPLOADS = [
    f"/v1/{path}" for path in ("audio/transcriptions", "audio/translations", "images/edits", "images/variations")
]


@pytest.mark.parametrize("path", [*UPLOADS, "//audio/transcriptions/"])
def test_uploads_go_through_as_they_come(front: Edge, worker: Worker, path: str) -> None:
    """A worker gets a file while it is sent, though it is larger than other bodies may be; up to a limit of its own."""
    asked = len(worker.asked)
    head = f"POST {path}?{{}} HTTP/1.1\r\nHost: x\r\nContent-Length: {{}}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", front.port), timeout=SECONDS) as connection:
        connection.sendall(head.format("part", 2000).encode() + bytes(1000))
        until(lambda: len(worker.asked) > asked)
        connection.sendall(bytes(1000))
        assert read_response(connection).status_code == 200
    refusal = front.send(head.format("large", 3_000_000).encode())
    assert (refusal.status_code, message_of(refusal.json())) == (413, "The request body is larger than 2097152 bytes.")


def test_the_limit_of_other_bodies_is_told(front: Edge) -> None:
    """It is the one that counts there."""
    refusal = front.send(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n")
    assert (refusal.status_code, message_of(refusal.json())) == (413, "The request body is larger than 1024 bytes.")


@pytest.mark.parametrize(("path", "kind"), [("/v1/messages", "error"), ("/v1/chat/completions", None)])
def test_too_many_requests_are_refused_in_both_forms(limited: Edge, path: str, kind: str | None) -> None:
    """A 429 of nginx has the error's type that SDKs look for, and says when to come back."""
    limited.statuses(3, {"X_Api_Key": "key-1"})
    response = limited.ask(path, X_Api_Key="key-1")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert (response.json().get("type"), response.json()["error"]["type"]) == (kind, "rate_limit_error")
    assert_own_headers(response.headers)


def test_plain_http_to_the_https_port_is_refused_in_the_api_s_form(worker: Worker, tmp_path: Path) -> None:
    """Not with a page of HTML, and with the status of any other bad request."""
    certificate, key = make_certificate(tmp_path)
    with edge(tmp_path, worker.address, certificate=certificate, certificate_key=key) as tls:
        response = tls.send(b"GET /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (response.status_code, response.json()["type"]) == (400, "error")
        assert_own_headers(response.headers)


def test_every_refusal_that_nginx_could_make_has_a_page(front: Edge) -> None:
    """Of the statuses that nginx itself may answer with, none is left with its page of HTML."""
    text = (front.folder / "nginx.conf").read_text(encoding="utf-8")
    covered = {
        int(word) for line in text.splitlines() if "error_page" in line for word in line.split() if word.isdigit()
    }
    assert covered >= {400, 403, 404, 405, 408, 411, 413, 414, 415, 416, 421, 429, 494, 495, 496, 497}
    assert covered >= set(range(500, 506)) | {507}


def test_what_the_app_says_passes_untouched(front: Edge) -> None:
    """Only nginx's own refusals have nginx's headers about caching."""
    assert "cache-control" not in front.ask().headers


def message_of(body: Mapping[str, Any]) -> str:
    message = body["error"]["message"]
    assert isinstance(message, str)
    return message


def assert_own_headers(headers: Any) -> None:
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert len(headers.get_list("x-request-id")) == 1
    assert headers["x-request-id"]
    assert headers.keys() >= SECURITY_HEADERS


# ── Logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/sessions/secret?hangup=secret HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /v1/sessions/secret?secret HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n",
        b"PUT /V1/Sessions/secret HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n",
        b"GET /V1/Sessions/secret HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /below/v1/sessions/secret HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/%73essions%2Fsecret HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models?secret HTTP/1.1\r\nHost: x\r\nAuthorization: secret\r\nAuthorization: secret\r\n\r\n",
        b"GET /v1/sessions/secret?secret HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v1/sessions/" + b"secret" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_no_log_has_session_ids_queries_or_keys(front: Edge, raw: bytes) -> None:
    """Neither the access log nor the error log, whatever fails."""
    front.drop_lines()
    front.send(raw)
    assert b"secret" not in front.raw_line()
    assert "secret" not in front.error_log


def test_not_even_a_critical_error_tells_a_request_line(worker: Worker, tmp_path: Path) -> None:
    """Where nginx can't keep a body, its client sees a 500, and nobody the query string."""
    in_files = {"client_body_buffer_size 1m": "client_body_buffer_size 1k"}
    raw = b"POST /v1/sessions/secret?secret HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000
    with edge(tmp_path, worker.address, replaced=in_files) as homeless:
        (tmp_path / "client_body").rmdir()
        assert homeless.send(raw).status_code == 500
        assert "secret" not in homeless.error_log


def test_the_access_log_tells_what_became_of_a_worker(front: Edge, worker: Worker) -> None:
    """A worker that hung up is found by its address, although the error log says nothing."""
    front.ask("/v1/models?hangup", X_Request_ID="some-request-0002")
    line = front.line("some-request-0002")
    assert (line["status"], line["worker"], line["worker_status"]) == (502, worker.address, "502")
    assert float(line["worker_connect_seconds"]) >= 0


def test_a_worker_that_refuses_is_in_the_access_log(tmp_path: Path, worker: Worker) -> None:
    """It never got the request, and the next one did."""
    gone = Worker()
    gone.stop()
    with edge(tmp_path, gone.address, worker.address, sticky="session") as half:
        for number in range(20):
            assert half.ask(X_Session_Id=f"{number}", X_Request_ID=f"some-request-{number}").status_code == 200
        tried = {half.line(f"some-request-{number}")["worker"] for number in range(20)}
    assert f"{gone.address}, {worker.address}" in tried


EVERY_BYTE = bytes(byte for byte in range(1, 256) if byte not in b"\r\n ")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + EVERY_BYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%FF%80%C3%28%22%0A%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%FF%80%C3%28%22%0A HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%E4%BD%A0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /\xff HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: " + EVERY_BYTE + b"\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\xfe\x00\r\n\r\n",
        b"GET / HTTP/\xff\r\n\r\n",
        b'GET /\\x00\\"\\u HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
)
def test_every_line_of_the_access_log_is_json(front: Edge, raw: bytes) -> None:
    """Whatever bytes a client sends, the line is valid UTF-8 and valid JSON."""
    front.drop_lines()
    status = front.send(raw).status_code
    assert json.loads(front.raw_line().decode())["status"] == status


def test_the_line_of_a_client_that_leaves_early_is_json(front: Edge) -> None:
    """Of a request that was never complete there is no status that JSON could not hold."""
    front.drop_lines()
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome")
    assert json.loads(front.raw_line())["path"] == "/v1/models"


# ── Who may look after the gateway ───────────────────────────────────────────────────────────────────────────────────

ADMIN_PATHS = [
    *("/admin", "/admin/", "/admin/v1/keys", "/console", "/console/", "/admin/v1/requests/feed?key=k_1"),
    *("//admin/v1/keys", "/%61dmin/v1/keys", "/v1/../admin/v1/keys", "/admin%2fv1/keys", "/v1/..%2fadmin/v1/keys"),
]


@pytest.mark.parametrize(
    ("client", "networks", "is_let_in"),
    [
        ("203.0.113.7", ["127.0.0.0/8", "10.0.0.0/8"], False),
        ("10.20.30.40", ["127.0.0.0/8", "10.0.0.0/8"], True),
        ("203.0.113.7", ["203.0.113.7"], True),
        ("203.0.113.7", ["*"], True),
        ("127.0.0.1", [], False),
        ("2001:db8::7", ["127.0.0.0/8", "fc00::/7"], False),
        ("fd00::7", ["127.0.0.0/8", "fc00::/7"], True),
    ],
    ids=str,
)
def test_the_admin_api_is_open_to_admin_networks_only(
    worker: Worker, tmp_path: Path, client: str, networks: list[str], is_let_in: bool
) -> None:
    """However its address is written: others get a 403 in the API's form, and no worker is asked; they may chat."""
    with edge(tmp_path, worker.address, replaced=BEHIND_A_PROXY, admin_networks=networks) as proxied:
        for path in ADMIN_PATHS:
            worker.asked.clear()
            answer = proxied.ask(path, X_Forwarded_For=client)
            assert (answer.status_code, len(worker.asked)) == ((200, 1) if is_let_in else (403, 0)), path
            if not is_let_in:
                error = answer.json()["error"]
                assert error["code"] == "network_not_allowed"
                assert "ADMIN_NETWORKS" in error["message"]
                assert {name.lower() for name in answer.headers} >= SECURITY_HEADERS
                for_anthropic = proxied.ask("/admin/v1/keys", X_Forwarded_For=client, anthropic_version="2023-06-01")
                assert for_anthropic.json() == answer.json()
        assert proxied.ask("/v1/models", X_Forwarded_For=client).status_code == 200
        assert proxied.ask("/administration", X_Forwarded_For=client).status_code == 200
