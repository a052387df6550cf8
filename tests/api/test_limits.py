"""Limits as clients meet them, over real sockets: refusals, headers, and what `GET /v1/key` says."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from app.api.wire.addresses import GENERATE
from app.domain.caller import caller_of_key
from app.domain.granting import Scope
from app.keys.administration import NewSecret, create_key
from app.storage.database import Database
from app.storage.limits import set_limits
from simulator.live import LiveSimulator
from tests import databases
from tests.addresses import address
from tests.clients import anthropic_sdk, sdk
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway, until

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

_HELLO = [{"role": "user", "content": "Hello"}]
_CALLS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"messages": _HELLO}),
    "responses": ("/v1/responses", {"model": "kimi", "input": "Hello"}),
    "completions": ("/v1/completions", {"model": "kimi", "prompt": "Hello"}),
    "anthropic": ("/v1/messages", {"model": "kimi", "max_tokens": 1000, "messages": _HELLO}),
    "gemini": (GENERATE, {"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"maxOutputTokens": 1000}}),
}
every_way = pytest.mark.parametrize(
    ("dialect", "streamed"), [(dialect, streamed) for dialect in _CALLS for streamed in (False, True)]
)
Make = Callable[..., NewSecret]


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """A gateway that keeps keys, limits and ledger in the test's database."""
    return {"database_url": database_url, "journal_dir": tmp_path / "journal"}


@pytest.fixture
def limited(start_gateway: StartGateway, database: Database, settings: dict[str, Any]) -> Iterator[LiveGateway]:
    """Such a gateway, running."""
    with start_gateway(**settings) as gateway:
        yield gateway


@pytest.fixture
def make_key(database: Database) -> Make:
    """Makes a key with limits, and perhaps some for its project and the gateway."""

    names = itertools.chain(["ada"], (f"ada {number}" for number in itertools.count(2)))

    def make(limits: str | None, *, project: str | None = None, gateway: str | None = None) -> NewSecret:
        with database.transaction() as connection:
            new = create_key(connection, name=next(names), project="lab")
            for scope, text in (
                (Scope("key", new.key.id), limits),
                (Scope("project", "lab"), project),
                (Scope("gateway"), gateway),
            ):
                if text is not None:
                    set_limits(database, connection, scope, text)
        return new

    return make


def _set(database: Database, scope: Scope, text: str | None) -> None:
    with database.transaction() as connection:
        set_limits(database, connection, scope, text)


def _ask(client: httpx.Client, dialect: str = "openai", *, streamed: bool = False) -> httpx.Response:
    path, body = _CALLS[dialect]
    return client.post(address(path, stream=streamed), json={**body, "stream": streamed})


def _code(error: dict[str, Any], dialect: str) -> str:
    """The gateway's own code."""
    if dialect == "gemini":
        return str(error["details"][0]["reason"])
    return str(error["details"]["error_code"] if dialect == "anthropic" else error["code"])


def _limits(client: httpx.Client) -> list[dict[str, Any]]:
    response = client.get("/v1/key")
    assert response.status_code == 200
    limits: list[dict[str, Any]] = response.json()["limits"]
    return limits


def _usage(client: httpx.Client) -> dict[str, int]:
    today: dict[str, int] = client.get("/v1/key").json()["usage"]["today"]
    return today


def _of_limits(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "ratelimit" in name}


def _known(client: httpx.Client, *texts: str) -> None:
    """Wait until the gateway knows these limits: it follows what is set while it runs."""
    until(lambda: [one["limit"] for one in _limits(client)] == [*texts])


@every_way
def test_a_limit_is_a_429_in_every_dialect(
    limited: LiveGateway, site: LiveSimulator, make_key: Make, dialect: str, streamed: bool
) -> None:
    """Whole or streamed: the answer before tells what is left; the refusal says which limit and when to come again."""
    new = make_key("1 request/hour, 100k tokens/hour")
    with limited.client(new.secret) as client:
        _known(client, "1 request/hour", "100k tokens/hour")
        answered = _ask(client, dialect, streamed=streamed)
        refused = _ask(client, dialect, streamed=streamed)
    assert answered.status_code == 200
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    error = refused.json()["error"]
    assert error["message"].startswith("Key 'ada' may use 1 request/hour, and has; the next request is possible in ")
    if dialect == "anthropic":
        assert error["type"] == "rate_limit_error"
        assert error["details"]["error_code"] == "rate_limit_exceeded"
    elif dialect == "gemini":
        assert (error["status"], _code(error, dialect)) == ("RESOURCE_EXHAUSTED", "rate_limit_exceeded")
        assert 0 < float(error["details"][-1]["retryDelay"].removesuffix("s")) <= 3600
    else:
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    seconds, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
    assert 0 < (milliseconds + 999) // 1000 == seconds <= 3600
    assert "x-should-retry" not in refused.headers
    prefix = "anthropic-ratelimit-requests-{}" if dialect == "anthropic" else "x-ratelimit-{}-requests"
    for response in (answered, refused):
        assert response.headers[prefix.format("limit")] == "1"
        assert response.headers[prefix.format("remaining")] == "0"
    reset = answered.headers[prefix.format("reset")]
    if dialect == "anthropic":
        at = datetime.strptime(reset, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        assert 0 < at - time.time() <= 3601
        assert "anthropic-ratelimit-tokens-remaining" in answered.headers
        assert not [name for name in answered.headers if name.startswith("x-ratelimit")]
    else:
        assert reset == "1h0m0s" or reset.startswith("59m")
        assert 99_000 < int(answered.headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert not [name for name in answered.headers if name.startswith("anthropic-ratelimit")]
    assert len(site.site.messages) == 1


@every_way
def test_only_answers_of_limited_keys_have_headers_about_limits(
    limited: LiveGateway, make_key: Make, dialect: str, streamed: bool
) -> None:
    """Each of theirs has them, all others have none; limits of other models don't count."""
    new = make_key("100 requests/minute for gpt*")
    with limited.client(new.secret) as client:
        _known(client, "100 requests/minute for gpt*")
        assert _of_limits(_ask(client, dialect, streamed=streamed)) == {}
    with limited.client() as client:
        assert _of_limits(_ask(client, dialect, streamed=streamed)) == {}
        assert _of_limits(client.get("/v1/models")) == {}


def test_a_new_key_is_limited_from_its_first_call_on(limited: LiveGateway, make_key: Make) -> None:
    """Whoever makes a key with limits and uses it at once finds no gap before they are known."""
    for _ in range(5):
        with limited.client(make_key("2 requests/hour").secret) as client:
            assert [_ask(client).status_code for _ in range(4)] == [200, 200, 429, 429]


@pytest.mark.parametrize("scope", ["key", "project", "gateway"])
def test_a_refusal_names_whose_limit_it_is(limited: LiveGateway, make_key: Make, scope: str) -> None:
    """The key's, its project's or the gateway's; each is counted over all that share it."""
    limits = {"key": None, "project": None, "gateway": None, scope: "1 request/hour"}
    new = make_key(limits["key"], project=limits["project"], gateway=limits["gateway"])
    with limited.client(new.secret) as client, limited.client() as other:
        _known(client, "1 request/hour")
        assert _ask(client).status_code == 200
        message = _ask(client).json()["error"]["message"]
        assert _ask(other).status_code == (429 if scope == "gateway" else 200)
    whose = {"key": "Key 'ada'", "project": "Project 'lab'", "gateway": "This gateway"}[scope]
    assert message.startswith(f"{whose} may use 1 request/hour")


@every_way
def test_a_spent_quota_is_not_to_be_tried_again(
    limited: LiveGateway, make_key: Make, dialect: str, streamed: bool
) -> None:
    """Its code is `insufficient_quota`, and `x-should-retry: false` tells SDKs; one for all time has no reset."""
    new = make_key("1 request in total")
    with limited.client(new.secret) as client:
        _known(client, "1 request in total")
        answered = _ask(client, dialect, streamed=streamed)
        refused = _ask(client, dialect, streamed=streamed)
    assert (answered.status_code, refused.status_code) == (200, 429)
    error = refused.json()["error"]
    assert _code(error, dialect) == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert not [name for name in _of_limits(answered) if "reset" in name]
    assert [value for name, value in _of_limits(answered).items() if "remaining" in name] == ["0"]


def test_a_spent_quota_of_a_period_says_when_the_next_one_begins(limited: LiveGateway, make_key: Make) -> None:
    """In seconds, until midnight."""
    new = make_key("1 request/day")
    with limited.client(new.secret) as client:
        _known(client, "1 request/day")
        assert _ask(client).status_code == 200
        refused = _ask(client)
        (limit,) = _limits(client)
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert abs(limit["resets_at"] - time.time() - int(refused.headers["retry-after"])) < 60
    assert "it begins anew in " in refused.json()["error"]["message"]


@pytest.mark.parametrize("limits", ["1 request/hour", "1 request/day"])
def test_the_sdk_of_openai_gets_its_own_error(limited: LiveGateway, make_key: Make, limits: str) -> None:
    """A RateLimitError with the code; a spent quota is asked for once, however often the SDK would try again."""
    new = make_key(limits)
    with limited.client(new.secret) as client, sdk.connect(limited, new.secret) as patient:
        _known(client, limits)
        sdk.ask(patient, "Hello")
        is_quota = "day" in limits
        with sdk.connect(limited, new.secret, max_retries=3 if is_quota else 0) as hasty:
            for ask in (_sdk_chat, _sdk_stream, _sdk_response):
                with pytest.raises(openai.RateLimitError) as caught:
                    ask(hasty)
                assert caught.value.code == ("insufficient_quota" if is_quota else "rate_limit_exceeded")
        assert _refusals(limited) == 3


@pytest.mark.parametrize("limits", ["1 request/hour", "1 request/day"])
def test_the_sdk_of_anthropic_gets_its_own_error(limited: LiveGateway, make_key: Make, limits: str) -> None:
    """A RateLimitError with the headers; a spent quota is asked for once, however often the SDK would try again."""
    new = make_key(limits)
    with limited.client(new.secret) as client, anthropic_sdk.connect(limited, new.secret) as patient:
        _known(client, limits)
        _anthropic_message(patient)
        retries = 3 if "day" in limits else 0
        with anthropic_sdk.connect(limited, new.secret, max_retries=retries) as hasty:
            for ask in (_anthropic_message, _anthropic_stream):
                with pytest.raises(anthropic.RateLimitError) as caught:
                    ask(hasty)
                assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert _refusals(limited) == 2


def test_the_sdk_of_openai_waits_until_there_is_room(
    start_gateway: StartGateway, settings: dict[str, Any], make_key: Make
) -> None:
    """For as long as `retry-after-ms` says, and then gets its answer: it is not refused again."""
    new = make_key("20 requests/minute")
    with (
        start_gateway(**settings, limit_wait=0) as gateway,
        gateway.client(new.secret) as client,
        sdk.connect(gateway, new.secret, max_retries=5) as patient,
    ):
        _known(client, "20 requests/minute")
        assert 429 in [_ask(client).status_code for _ in range(40)]
        before = _refusals(gateway)
        assert sdk.ask(patient, "Hello")
        assert _refusals(gateway) - before <= 1


def test_the_holder_of_a_key_is_told_how_it_stands(limited: LiveGateway, make_key: Make) -> None:
    """With all limits that apply: what is used, what is left, and until when."""
    new = make_key("60 requests/hour, 5 at once, 1M tokens/day for kimi*, $2.50 in total", project="9 requests/month")
    with limited.client(new.secret) as client:
        _known(client, "60 requests/hour", "5 at once", "1M tokens/day for kimi*", "$2.50 in total", "9 requests/month")
        assert {one["used"] for one in _limits(client)} == {0}
        for _ in range(3):
            assert _ask(client).status_code == 200
        until(lambda: _usage(client)["requests"] == 3)
        used = _usage(client)["tokens_in"] + _usage(client)["tokens_out"]
        # For a moment the ledger has what the worker still counts as under way.
        until(lambda: _limits(client)[2]["used"] == used)
        requests, at_once, tokens, dollars, of_project = _limits(client)
    assert (requests["scope"], requests["measure"], requests["window"], requests["models"]) == (
        "key",
        "requests",
        "hour",
        None,
    )
    assert (requests["amount"], requests["used"], requests["remaining"]) == (60, 3, 57)
    assert 100 < requests["resets_in"] <= 180
    assert abs(requests["resets_at"] - time.time() - requests["resets_in"]) < 60
    assert (at_once["amount"], at_once["used"], at_once["remaining"], at_once["window"]) == (5, 0, 5, None)
    assert (at_once["resets_in"], at_once["resets_at"]) == (None, None)
    assert tokens["models"] == "kimi*"
    assert tokens["remaining"] == 1_000_000 - used
    assert (dollars["amount"], dollars["used"], dollars["remaining"], dollars["resets_in"]) == (2.5, 0, 2.5, None)
    assert (of_project["scope"], of_project["used"], of_project["remaining"]) == ("project", 3, 6)


def test_a_running_call_is_counted_for_the_holder(
    start_gateway: StartGateway, settings: dict[str, Any], site: LiveSimulator, make_key: Make
) -> None:
    """Of what is allowed at once."""
    new = make_key("5 at once")
    site.site.update(failure="hang")
    with (
        start_gateway(**settings, stream_grace_seconds=0.01) as gateway,
        gateway.client(new.secret) as client,
        ExitStack() as stack,
    ):
        _known(client, "5 at once")
        stream = {"messages": _HELLO, "stream": True}
        for _ in range(2):
            stack.enter_context(client.stream("POST", "/v1/chat/completions", json=stream))
        (limit,) = _limits(client)
    assert (limit["used"], limit["remaining"]) == (2, 3)


def test_the_keys_of_the_environment_have_limits_too(limited: LiveGateway, database: Database) -> None:
    """By their ids, or by their project."""
    with limited.client() as client:
        assert _limits(client) == []
        _set(database, Scope("key", caller_of_key(ALICE_KEY).id), "60 requests/hour")
        _set(database, Scope("project", "environment"), "7 at once")
        _known(client, "60 requests/hour", "7 at once")
        assert _ask(client).headers["x-ratelimit-remaining-requests"] == "59"
        assert _limits(client)[0]["remaining"] == 59


def test_what_is_set_holds_on_every_worker(
    start_gateway: StartGateway, database: Database, settings: dict[str, Any], make_key: Make
) -> None:
    """New limits and none; both workers count together, and the holder is told the same by each."""
    new = make_key(None)
    with ExitStack() as stack:
        workers = [stack.enter_context(start_gateway(**settings)) for _ in range(2)]
        clients = [stack.enter_context(worker.client(new.secret)) for worker in workers]
        _set(database, Scope("key", new.key.id), "4 requests/hour")
        for client in clients:
            _known(client, "4 requests/hour")
        statuses = [_ask(client).status_code for client in clients * 4]
        assert sorted(statuses) == [200] * 4 + [429] * 4
        for client in clients:
            assert _limits(client)[0]["remaining"] == 0
        _set(database, Scope("key", new.key.id), "none")
        for client in clients:
            _known(client)
            assert _ask(client).status_code == 200


def test_without_a_database_the_settings_limits_hold(start_gateway: StartGateway) -> None:
    """The holder is told how it stands, by the only worker that counts."""
    limits = {"default_limits": "3 requests/hour, 5 at once, 10k tokens/day", "gateway_limits": "100 requests/hour"}
    with start_gateway(database_url="none", **limits) as gateway, gateway.client() as client:
        assert [one["used"] for one in _limits(client)] == [0, 0, 0, 0]
        statuses = [_ask(client).status_code for _ in range(4)]
        of_key, at_once, tokens, of_all = _limits(client)
        assert client.get("/v1/key").json()["usage"] is None
    assert statuses == [200, 200, 200, 429]
    assert (of_key["limit"], of_key["scope"], of_key["used"], of_key["remaining"]) == ("3 requests/hour", "key", 3, 0)
    assert (at_once["used"], at_once["remaining"]) == (0, 5)
    assert 0 < tokens["used"] < 1000
    assert (of_all["scope"], of_all["used"], of_all["remaining"]) == ("gateway", 3, 97)


def test_nothing_is_limited_where_nothing_is_set(start_gateway: StartGateway) -> None:
    """Without a database and without limits in the settings the list is empty."""
    with start_gateway(database_url="none") as gateway, gateway.client() as client:
        assert _limits(client) == []


def _sdk_chat(client: OpenAI) -> None:
    sdk.ask(client, "Hello")


def _sdk_stream(client: OpenAI) -> None:
    for _ in client.chat.completions.create(model="kimi", messages=sdk.said("Hello"), stream=True):
        pass


def _sdk_response(client: OpenAI) -> None:
    client.responses.create(model="kimi", input="Hello")


def _anthropic_message(client: Anthropic) -> None:
    client.messages.create(model="kimi", max_tokens=100, messages=anthropic_sdk.said("Hello"))


def _anthropic_stream(client: Anthropic) -> None:
    with client.messages.stream(model="kimi", max_tokens=100, messages=anthropic_sdk.said("Hello")) as stream:
        stream.until_done()


def _refusals(gateway: LiveGateway) -> int:
    """How many calls limits have refused, by the gateway's metrics."""
    with gateway.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("kimi_limit_refusals_total{"))
