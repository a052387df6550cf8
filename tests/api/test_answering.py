"""The frame in which all dialects answer: an answer's headers, its errors, and ordinary routes beside it."""

import io
import json
from typing import Any, TextIO

import httpx
import pytest
from msgspec.structs import replace
from starlette.responses import PlainTextResponse

from app.api.answering import opening_headers
from app.api.completions.dialect import COMPLETIONS
from app.api.dialects import Exchange
from app.api.wire.addresses import GENERATE
from app.assembly.app import create_app
from app.domain.chat import Delta
from app.domain.errors import GatewayError, InvalidRequest, UpstreamUnavailable
from app.domain.prompt import PromptLimit, text_prompt
from app.observe import logging as logs
from app.settings import load_settings
from simulator.live import LiveSimulator
from tests.addresses import address
from tests.api.answers import OPENING
from tests.api.reading import read
from tests.live import ALICE_KEY, serving
from tests.scripted import ScriptedProvider, gateway_with

SENT = replace(OPENING, prompt=text_prompt("text", 986, PromptLimit(1000), dropped=2, shortened=1))
LONG = "x" * 100
# For each dialect an address, a request of a text, and what an error calls the conversation.
CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages")
DIALECTS = [
    CHAT,
    ("/v1/completions", {"prompt": LONG}, "prompt"),
    ("/v1/responses", {"input": LONG}, "input"),
    ("/v1/messages", {**CHAT[1], "max_tokens": 99}, "messages"),
    (GENERATE, {"contents": [{"parts": [{"text": LONG}]}]}, "contents"),
]
by_dialect = pytest.mark.parametrize(("path", "asked", "param"), DIALECTS, ids=[path for path, _, _ in DIALECTS])


def _exchange(**fields: Any) -> Exchange:
    return replace(read(COMPLETIONS, {"prompt": "Once"}), **fields)


def test_a_response_tells_how_its_prompt_came_about() -> None:
    """Action, size, what was left out and who answered are there; what doesn't apply isn't."""
    assert dict(opening_headers(SENT, _exchange())) == {
        b"x-session-action": b"stateless",
        b"x-prompt-chars": b"986/1000",
        b"x-context-dropped": b"2",
        b"x-context-shortened": b"1",
        b"x-provider": b"kimi-web",
    }


def test_what_has_a_name_only_where_it_applies() -> None:
    """A session's id, those who didn't answer, and a size in tokens."""
    sent = replace(
        SENT,
        session_id="李雷",
        fallback=("a=upstream_timeout", "b=unfit"),
        prompt=text_prompt("text", 1, PromptLimit(9, "tokens")),
    )
    headers = dict(opening_headers(sent, _exchange()))
    assert headers[b"x-session-id"] == b"%E6%9D%8E%E9%9B%B7"
    assert headers[b"x-fallback"] == b"a=upstream_timeout, b=unfit"
    assert headers[b"x-prompt-tokens"] == b"1/9"
    assert b"x-prompt-chars" not in headers


def test_ignored_parameters_are_listed_up_to_a_number() -> None:
    """The list is sorted, and a request with very many fields makes no very long header."""
    some = _exchange(ignored=["top_p", "seed"], unserved=["tools.search"])
    assert dict(opening_headers(SENT, some))[b"x-ignored-params"] == b"seed, tools.search, top_p"
    many = _exchange(ignored=[f"field_{number:03}" for number in range(500)])
    assert len(dict(opening_headers(SENT, many))[b"x-ignored-params"].split(b", ")) == 32
    long = _exchange(unserved=[f"tools.{number:02}{'x' * 100}" for number in range(32)])
    listed = dict(opening_headers(SENT, long))[b"x-ignored-params"]
    assert 900 < len(listed) <= 1000
    assert all(len(name) == 108 for name in listed.split(b", "))


def test_an_upstream_that_takes_options_ignores_none() -> None:
    """What nobody serves is named whoever answers, and without it there is no such header."""
    taken = replace(SENT, options_taken=True)
    some = _exchange(ignored=["top_p"], unserved=["tools.search"])
    assert dict(opening_headers(taken, some))[b"x-ignored-params"] == b"tools.search"
    assert b"x-ignored-params" not in dict(opening_headers(taken, _exchange(ignored=["top_p"])))


@by_dialect
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_conversation_is_told_in_the_dialects_words(
    site: LiveSimulator, log_stream: TextIO, path: str, asked: dict[str, Any], param: str, stream: bool
) -> None:
    """What is too long is named as the client has sent it, also if it wanted a stream."""
    small = ScriptedProvider("small", limit=PromptLimit(50))
    with gateway_with(site, log_stream, small) as gateway, gateway.client() as http:
        response = http.post(address(path, "r", stream=stream), json={"model": "r", "stream": stream, **asked})
    error = response.json()["error"]
    assert response.status_code == 400
    if path == "/v1/messages":
        assert error["message"].startswith("prompt is too long: ")
        assert error["details"] == {"error_code": "context_length_exceeded"}
    elif path == GENERATE:
        assert error["details"][0]["reason"] == "context_length_exceeded"
        assert _field(error) == param
    else:
        assert (error["param"], error["code"]) == (param, "context_length_exceeded")


@by_dialect
@pytest.mark.parametrize("begun", [[], [Delta("Half of ")]], ids=["before the first word", "after it"])
def test_a_streams_failure_is_told_in_the_dialects_words(
    site: LiveSimulator,
    log_stream: TextIO,
    path: str,
    asked: dict[str, Any],
    param: str,
    begun: list[Delta],
) -> None:
    """Whether the stream has begun or not, an upstream's refusal names the field by which the client knows it."""
    steps: list[Delta | GatewayError] = [*begun, InvalidRequest("Not so.", param="messages")]
    with gateway_with(site, log_stream, ScriptedProvider("choosy", steps)) as gateway, gateway.client() as http:
        response = http.post(address(path, "r", stream=True), json={"model": "r", "stream": True, **asked})
    assert response.status_code == (200 if begun else 400)
    error = _streamed_error(response) if begun else response.json()["error"]
    if path == "/v1/messages":
        assert error["message"] == "messages: Not so."
    elif path == GENERATE:
        assert (error["message"], _field(error)) == ("Not so.", param)
    else:
        assert (error["message"], error["param"]) == ("Not so.", param)
    assert "[DONE]" not in response.text


def _field(error: Any) -> Any:
    """The field at fault, among the details of one of Google's errors."""
    return error["details"][1]["fieldViolations"][0]["field"]


def _streamed_error(response: httpx.Response) -> Any:
    """The error of the last event of a stream."""
    (last,) = [line for line in response.text.splitlines() if line.startswith("data: ")][-1:]
    return json.loads(last.removeprefix("data: "))["error"]


@by_dialect
def test_each_dialect_answers_whole_and_streamed(
    site: LiveSimulator, log_stream: TextIO, path: str, asked: dict[str, Any], param: str
) -> None:
    """The same words reach the client, with the headers of an answer, after one who couldn't answer."""
    broken, working = ScriptedProvider("broken", UpstreamUnavailable("Down.")), ScriptedProvider("working")
    with gateway_with(site, log_stream, broken, working) as gateway, gateway.client() as http:
        answers = [
            http.post(address(path, "r", stream=stream), json={"model": "r", "stream": stream, **asked})
            for stream in (False, True)
        ]
    for answer in answers:
        assert answer.status_code == 200
        assert "Hello." in answer.text
        assert answer.headers["x-provider"] == "working"
        assert answer.headers["x-fallback"] == "broken=upstream_unavailable"
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == [
        "application/json",
        "text/event-stream",
    ]


def test_an_ordinary_route_is_served_like_any_other() -> None:
    """A POST route with parameters, a dependency on nothing of ours and no response model has key, id and answer."""
    values: dict[str, Any] = {"_env_file": None, "api_master_key": ALICE_KEY, "chat_page_url": "http://127.0.0.1:9/"}
    app = create_app(load_settings(**values))
    logs.configure("DEBUG", "json", io.StringIO())

    @app.post("/v1/extra", response_model=None)
    async def extra(document: dict[str, int], times: int = 1) -> dict[str, int]:
        return {name: number * times for name, number in document.items()}

    @app.post("/v1/plain", response_model=None)
    async def plain() -> PlainTextResponse:
        return PlainTextResponse("Plainly.", 202)

    with serving(app) as gateway, gateway.client() as http:
        answer = http.post("/v1/extra?times=2", json={"a": 3}, headers={"X-Request-ID": "request-of-mine"})
        text = http.post("/v1/plain")
        refused = http.post("/v1/plain", headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json()) == (200, {"a": 6})
    assert answer.headers.get_list("x-request-id") == ["request-of-mine"]
    assert (text.status_code, text.text, refused.status_code) == (202, "Plainly.", 401)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("GET", "/metrics", None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/sessions", None),
        ("GET", "/nothing", None),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "stream": True}),
        ("POST", "/v1/chat/completions", {"messages": []}),
    ],
)
def test_nobody_on_the_way_may_keep_an_answer(client: httpx.Client, method: str, path: str, body: Any) -> None:
    """Whole or streamed, good or bad: proxies and browsers are told not to store it."""
    answer = client.request(method, path, json=body)
    assert answer.headers.get_list("cache-control") == ["no-store"]
