"""The gateway as the command line sees it: status, headers and raw bytes, by the real curl."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway

CHAT = "/v1/chat/completions"
ALICE = f"Authorization: Bearer {ALICE_KEY}"
HELLO = '{"messages":[{"role":"user","content":"Hello"}]}'
HELLO_STREAM = '{"messages":[{"role":"user","content":"Hello"}],"stream":true}'
JSON = ("-H", "Content-Type: application/json")


@dataclass(frozen=True)
class Reply:
    """What curl got. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a body that is the envelope and nothing else, in a response that has a request id."""
        assert self.headers["x-request-id"]
        assert list(self.json) == ["error"]
        error: dict[str, Any] = self.json["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert isinstance(error["message"], str)
        assert error["message"]
        return error


class Curl:
    """Runs curl; each call is a process and a connection of its own."""

    def __init__(self, gateway: LiveGateway, folder: Path) -> None:
        self._gateway = gateway
        self._headers = folder / "headers"

    def __call__(self, path: str, *options: str, key: str | None = ALICE, stdin: bytes = b"") -> Reply:
        """Fetch a path; `key` is the whole Authorization header, or None to send none."""
        command = ["curl", "-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(WAIT_SECONDS)]
        command += ["--dump-header", str(self._headers), *(("-H", key) if key else ()), *options]
        done = subprocess.run(
            [*command, self._gateway.base_url + path],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=WAIT_SECONDS,
        )
        assert done.returncode == 0, done.stderr.decode()
        # A `100 Continue` has a block of its own before the response's.
        block = self._headers.read_bytes().decode("latin-1").rstrip("\r\n").split("\r\n\r\n")[-1]
        status_line, *lines = block.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Reply(int(status_line.split()[1]), {name.lower(): value for name, value in headers.items()}, done.stdout)


@pytest.fixture
def curl(gateway: LiveGateway, tmp_path: Path) -> Curl:
    """curl, at a gateway with default settings."""
    return Curl(gateway, tmp_path)


def test_a_plain_completion(curl: Curl, site: LiveSimulator) -> None:
    """A POST with a JSON body gets a JSON answer in UTF-8, with all fields that OpenAI's has."""
    site.site.update(reply=EMOJI_TEXT)
    reply = curl(CHAT, *JSON, "-d", HELLO)
    assert reply.status == 200
    assert set(reply.json) == {"id", "object", "created", "model", "choices", "usage"}
    assert reply.json["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": EMOJI_TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["openai-processing-ms"].isdigit()


def test_the_body_counts_and_not_its_declared_type(curl: Curl) -> None:
    """`curl -d` without a Content-Type header, which curl then calls a form, is answered all the same."""
    assert curl(CHAT, "-d", HELLO).status == 200


def test_the_framing_of_a_stream(curl: Curl, site: LiveSimulator) -> None:
    """A stream is `data:` lines with an empty line after each, JSON in all but the last, which is [DONE]."""
    site.site.update(reply=EMOJI_TEXT)
    reply = curl(CHAT, *JSON, "-N", "-d", HELLO_STREAM)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-length" not in reply.headers
    assert reply.headers["x-request-id"].startswith("req_")
    assert b"\r" not in reply.body
    *events, done, rest = reply.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(list(choice["delta"]) == ["content"] for choice in choices[1:-1])
    assert "".join(choice["delta"]["content"] for choice in choices[:-1]) == EMOJI_TEXT
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_wants_it(curl: Curl) -> None:
    """With include_usage all chunks say `usage: null` but the last, which has the usage and no choices."""
    body = HELLO_STREAM[:-1] + ',"stream_options":{"include_usage":true}}'
    *events, _, _ = curl(CHAT, *JSON, "-N", "-d", body).body.split(b"\n\n")
    *chunks, last = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert all("usage" in chunk and chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]


def test_a_silent_site_is_bridged_by_comments(start_gateway: StartGateway, site: LiveSimulator, tmp_path: Path) -> None:
    """While the site is silent the stream holds comments; when it fails an error event ends it, without [DONE]."""
    site.site.update(failure="hang")
    settings = {"max_retries": 0, "stream_grace_seconds": 0.01, "heartbeat_seconds": 0.02, "request_timeout": 1}
    with start_gateway(**settings) as gateway:
        reply = Curl(gateway, tmp_path)(CHAT, *JSON, "-N", "-d", HELLO_STREAM)
    first, *pings, last, rest = reply.body.split(b"\n\n")
    assert reply.status == 200
    assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(pings) > 1
    assert set(pings) == {b": ping"}
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_timeout"
    assert rest == b""


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/completions/x", "/v2/chat/completions", "/v1/files"])
def test_an_unknown_url(curl: Curl, path: str) -> None:
    """An address that doesn't exist is a 404 that says unknown_url."""
    reply = curl(path, *JSON, "-d", "{}")
    assert reply.status == 404
    assert (reply.error["code"], reply.error["type"]) == ("unknown_url", "invalid_request_error")
    assert path in reply.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, {"POST"}),
        ("PUT", CHAT, {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("DELETE", "/health", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method(curl: Curl, method: str, path: str, allowed: set[str]) -> None:
    """A method that an address doesn't know is a 405 that says which ones it does."""
    reply = curl(path, "-X", method)
    assert reply.status == 405
    assert reply.error["code"] == "method_not_allowed"
    assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "key",
    [
        None,
        "Authorization;",
        "Authorization: Bearer",
        "Authorization: Bearer sk-someone-elses",
        f"Authorization: Basic {ALICE_KEY}",
        f"Authorization: Bearer {ALICE_KEY[:-1]}",
        f"Authorization: Bearer {ALICE_KEY}x",
        f"Key: {ALICE_KEY}",
    ],
)
def test_a_missing_or_wrong_key(curl: Curl, site: LiveSimulator, key: str | None) -> None:
    """Without the right key every address is a 401, whether it exists or not, and the key isn't repeated."""
    for path in ("/v1/models", CHAT, "/v1/sessions", "/v1/nothing"):
        reply = curl(path, key=key)
        assert reply.status == 401
        assert (reply.error["code"], reply.error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert ALICE_KEY[5:-5].encode() not in reply.body
        assert b"someone" not in reply.body
    assert site.site.messages == ()


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_schemes_spelling(curl: Curl, scheme: str) -> None:
    """The word before the key may be written in any case, and with more than one space after it."""
    assert curl("/v1/models", key=f"authorization: {scheme} {ALICE_KEY}").status == 200


def test_the_public_addresses(curl: Curl) -> None:
    """What load balancers and people look at needs no key, and has a request id, too."""
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json"):
        reply = curl(path, key=None)
        assert (path, reply.status) == (path, 200)
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    ['{"messages": [', "", " ", "not json", '{"messages":[{"role":"user","content":"\\ud83d"}]}', "[" * 5000],
    ids=["cut off", "empty", "blank", "text", "half a surrogate", "deep"],
)
def test_a_body_that_is_no_json(curl: Curl, site: LiveSimulator, body: str) -> None:
    """A body that can't be read as JSON is a 400 that says so."""
    reply = curl(CHAT, *JSON, "-d", body)
    assert reply.status == 400
    assert "JSON" in reply.error["message"]
    assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", None)
    assert site.site.messages == ()


@pytest.mark.parametrize("body", ["[]", '"Hello"', "null", "7"])
def test_a_body_that_is_no_object(curl: Curl, body: str) -> None:
    """JSON that is no object is a 400 that says so."""
    reply = curl(CHAT, *JSON, "-d", body)
    assert reply.status == 400
    assert "object" in reply.error["message"]


def test_a_body_that_is_no_utf8(curl: Curl) -> None:
    """Bytes that are no text are a 400, too."""
    reply = curl(CHAT, *JSON, "--data-binary", "@-", stdin=b'{"messages":[{"role":"user","content":"\xff\xfe"}]}')
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-H", "Expect:"),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Transfer-Encoding: chunked", "-H", "Expect:"),
    ],
    ids=["announced", "announced and sent at once", "chunked", "chunked and sent at once"],
)
@pytest.mark.parametrize("size", [1025, 3_000_000])
def test_a_body_that_is_too_large(
    start_gateway: StartGateway, site: LiveSimulator, tmp_path: Path, options: tuple[str, ...], size: int
) -> None:
    """A body over MAX_BODY_BYTES is a 413, whether its size was announced or not."""
    with start_gateway(max_body_bytes=1024) as gateway:
        curl = Curl(gateway, tmp_path)
        reply = curl(CHAT, *JSON, *options, "--data-binary", "@-", stdin=HELLO.encode().ljust(size))
        largest = curl(CHAT, *JSON, *options, "--data-binary", "@-", stdin=HELLO.encode().ljust(1024))
    assert reply.status == 413
    assert (reply.error["code"], reply.error["type"]) == ("request_too_large", "invalid_request_error")
    assert "MAX_BODY_BYTES" in reply.error["message"]
    assert largest.status == 200
    assert len(site.site.messages) == 1


def test_a_sane_request_id_is_taken_over(curl: Curl) -> None:
    """The client's own request id comes back, in errors as well."""
    given = "trace-4711_a.b"
    for reply in (
        curl("/v1/models", "-H", f"X-Request-ID: {given}"),
        curl("/v1/nothing", "-H", f"X-Request-ID: {given}"),
        curl("/v1/models", "-H", f"X-Request-ID: {given}", key=None),
    ):
        assert reply.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["short", "a" * 129, "has a space in it", "semi;colon-x", "umlaut-äöü-x", "<script>x"]
)
def test_any_other_request_id_is_replaced(curl: Curl, given: str) -> None:
    """A request id that is too short, too long or odd never comes back."""
    reply = curl("/v1/models", "-H", f"X-Request-ID: {given}")
    assert reply.status == 200
    assert reply.headers["x-request-id"].startswith("req_")
    assert len(reply.headers["x-request-id"]) == 20


def test_a_session_id_that_is_too_long(curl: Curl) -> None:
    """A session id of more than 256 characters is a 400 that names the header."""
    reply = curl(CHAT, *JSON, "-H", f"X-Session-Id: {'s' * 257}", "-d", HELLO)
    assert reply.status == 400
    assert reply.error["param"] == "X-Session-Id"


def test_a_head_request_to_the_root(curl: Curl) -> None:
    """`HEAD /`, with which some clients look whether anyone is there, is answered without a key."""
    reply = curl("/", "--head", key=None)
    assert (reply.status, reply.headers["x-request-id"][:4]) == (200, "req_")
