"""The lines that the gateway writes about its requests."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, BOB_KEY, gateway_for

QUESTION = "What is the capital of Atlantis?"
ANSWER = "Poseidonis, they say."
CHAT = "/v1/chat/completions"


def body(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": QUESTION}], **fields}


@contextmanager
def logging_gateway(site: LiveSimulator, lines: list[Any], **settings: object) -> Iterator[httpx.Client]:
    """A client of a gateway whose log lines are in `lines` when the context has ended."""
    stream = io.StringIO()
    with gateway_for(site, stream, **settings) as gateway, gateway.client() as http:
        yield http
    # The client of this test logs, too.
    own = (json.loads(line) for line in stream.getvalue().splitlines())
    lines += [line for line in own if line["logger"].startswith("kimi.")]


def requests_in(lines: list[Any], path: str = CHAT) -> list[Any]:
    return [line for line in lines if line["event"] == "request" and line["path"] == path]


def test_the_calls_of_one_session_can_be_found_together(site: LiveSimulator) -> None:
    """Their lines share a digest that tells neither the session's id nor that others call theirs the same."""
    lines: list[Any] = []
    with logging_gateway(site, lines) as http:
        for user in ("ada@example.com", "ada@example.com", "bob@example.com", None):
            assert http.post(CHAT, json=body(user=user)).status_code == 200
        other = {"Authorization": f"Bearer {BOB_KEY}"}
        assert http.post(CHAT, json=body(user="ada@example.com"), headers=other).status_code == 200
    first, second, of_bob, none, of_another_key = [line["session"] for line in requests_in(lines)]
    assert first == second
    assert len({first, of_bob, none, of_another_key}) == 4
    assert none is None
    assert [line for line in lines if "example.com" in str(line)] == []
    assert [line["session_action"] for line in requests_in(lines)] == ["new", "continued", "new", "stateless", "new"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_texts_are_logged_only_where_they_are_wanted(site: LiveSimulator, wanted: bool, stream: bool) -> None:
    """LOG_TEXTS adds one line at DEBUG with prompt and answer under the request's id; without it there are no texts."""
    site.site.update(reply=ANSWER)
    lines: list[Any] = []
    with logging_gateway(site, lines, log_texts=wanted) as http:
        assert http.post(CHAT, json=body(stream=stream)).status_code == 200
    texts = [line for line in lines if line["event"] == "texts"]
    (request,) = requests_in(lines)
    if wanted:
        (line,) = texts
        assert (line["level"], line["prompt"], line["answer"]) == ("debug", QUESTION, ANSWER)
        assert line["request_id"] == request["request_id"]
        lines.remove(line)
    assert not any(text in str(lines) for text in (QUESTION, ANSWER))
    assert not any(secret in str(lines + texts) for secret in (ALICE_KEY, *site.site.issued_nonces))


def test_the_prompt_of_a_failed_call_is_logged_too(site: LiveSimulator) -> None:
    """Whoever looks for what the site didn't like sees what it got."""
    site.site.update(failure="html")
    lines: list[Any] = []
    with logging_gateway(site, lines, log_texts=True) as http:
        assert http.post(CHAT, json=body()).status_code == 502
    assert [(line["prompt"], line["answer"]) for line in lines if line["event"] == "texts"] == [(QUESTION, "")]


def test_probes_are_logged_for_those_who_look_closely(site: LiveSimulator) -> None:
    """The requests of load balancers are at DEBUG, all others at INFO."""
    lines: list[Any] = []
    with logging_gateway(site, lines) as http:
        for path in ("/health", "/ready", "/v1/models"):
            http.get(path)
    levels = {line["path"]: line["level"] for line in lines if line["event"] == "request"}
    assert levels == {"/health": "debug", "/ready": "debug", "/v1/models": "info"}


@pytest.mark.parametrize(
    ("ask", "status", "error", "param"),
    [
        (lambda http: http.get("/v1/nothing"), 404, "unknown_url", None),
        (lambda http: http.get(CHAT), 405, "method_not_allowed", None),
        (lambda http: http.post(CHAT, json=body(model="nonsense")), 404, "model_not_found", "model"),
        (lambda http: http.post(CHAT, json=body(temperature="warm")), 400, "invalid_type", "temperature"),
        (lambda http: http.post(CHAT, content=b"{"), 400, "invalid_request_error", None),
        (lambda http: http.post(CHAT, json=body(), headers={"Authorization": "x"}), 401, "invalid_api_key", None),
        (lambda http: http.post(CHAT, content=b"x" * 1_100_000), 413, "request_too_large", None),
        (
            lambda http: http.post(CHAT, content=b"x", headers={"Content-Encoding": "x"}),
            415,
            "unsupported_content_encoding",
            None,
        ),
    ],
    ids=["address", "method", "model", "field", "json", "key", "size", "coding"],
)
def test_a_refusal_is_logged_with_its_code(
    site: LiveSimulator,
    ask: Callable[[httpx.Client], httpx.Response],
    status: int,
    error: str,
    param: str | None,
) -> None:
    """An operator sees why, wherever a request was turned away, and never what was in it."""
    lines: list[Any] = []
    with logging_gateway(site, lines) as http:
        assert ask(http).status_code == status
    (line,) = (line for line in lines if line["event"] == "request")
    assert line["status"] == status
    assert line["error"] == error
    assert line.get("param") == param
