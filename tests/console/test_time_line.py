"""What one request waited for, from the place where it waits to the page and the admin API."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.api.admin.request_detail import known_headers, time_line
from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from tests.conftest import RunLog
from tests.console.running import Console, console_of
from tests.live import ALICE_KEY

_ROW: dict[str, Any] = {
    "request_id": "req_1",
    "model": "kimi",
    "provider": "second",
    "outcome": "completed",
    "streamed": 0,
    "milliseconds": 2000,
    "first_milliseconds": 1500,
    "dropped": 2,
    "passed_over": "first=upstream_timeout,small=unfit",
    "action": "continued",
    "prompt_size": 986,
    "prompt_limit": 1000,
    "prompt_in_tokens": 0,
    "shortened": None,
    "waits": "limits=100,queue=300",
}


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSimulator]:
    """A site that takes long enough for others to wait."""
    with running(Behaviour(latency_s=0.3)) as site:
        yield site


@pytest.fixture(scope="module")
def narrow(site: LiveSimulator, run_log: RunLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A gateway that sends one message at a time."""
    folder = tmp_path_factory.mktemp("narrow")
    with run_log.keeps_secrets_of(site), console_of(site, run_log.stream, folder, upstream_concurrency=1) as console:
        yield console


def _one_at_once(console: Console) -> str:
    """The secret of a key whose calls wait for each other."""
    with console.gateway.client(console.new_key(scopes=("admin",)).secret) as admin:
        secret: str = admin.post("/admin/v1/keys", json={"name": "narrow", "limits": "1 at once"}).json()["secret"]
        return secret


def _detail(console: Console, answer: httpx.Response) -> dict[str, Any]:
    """A request as the admin API tells it."""
    request_id = answer.headers["x-request-id"]
    assert console.rows(lambda row: row["request_id"] == request_id)
    with console.gateway.client(console.new_key(scopes=("admin:read",)).secret) as reader:
        detail: dict[str, Any] = reader.get(f"/admin/v1/requests/{request_id}").json()
        return detail


@pytest.mark.parametrize("step", ["limits", "session", "queue"])
def test_a_request_that_has_to_wait_says_for_what(narrow: Console, site: LiveSimulator, step: str) -> None:
    """For its key's limit, for its session, or for a slot, while another one is being answered."""
    key = _one_at_once(narrow) if step == "limits" else ALICE_KEY
    same = {"user": "somebody"} if step == "session" else {}
    before = site.site.counters.messages
    with ThreadPoolExecutor() as threads:
        first = threads.submit(narrow.chat, key, **same)
        assert site.site.wait_for(lambda now: now.messages > before and now.in_flight == 1)
        second = narrow.chat(key, **{**same, "messages": [{"role": "user", "content": "What is my name?"}]})
        assert (first.result().status_code, second.status_code) == (200, 200)
    detail = _detail(narrow, second)
    assert [one["step"] for one in detail["time_line"]][:2] == [step, "upstream"]
    assert detail["waits"] == f"{step}={detail['time_line'][0]['milliseconds']}"
    if step != "limits":  # a new key's first call asks the database for its share
        assert _detail(narrow, first.result())["waits"] is None
    with narrow.signed_in("admin") as admin:
        page = admin.client.get(f"/console/requests/{detail['id']}", headers={"accept-language": "en"}).text
    assert page.count("Waiting for") == 2  # in the picture and below it


def test_a_stale_nonce_is_seen_in_the_time_line(narrow: Console, site: LiveSimulator) -> None:
    """The time in which a new one was fetched is no part of the upstream's; and the page has the answer's headers."""
    assert narrow.chat().status_code == 200
    site.site.rotate()
    answer = narrow.chat()
    detail = _detail(narrow, answer)
    assert [one["step"] for one in detail["time_line"]][:2] == ["nonce", "upstream"]
    assert detail["headers"].items() <= dict(answer.headers).items()
    assert {"x-request-id", "x-session-action", "x-prompt-chars", "x-context-dropped"} < detail["headers"].keys()
    with narrow.signed_in("admin") as admin:
        page = admin.client.get(f"/console/requests/{detail['id']}", headers={"accept-language": "en"}).text
    assert "Fetching the site&#39;s nonce" in page
    assert f"x-prompt-chars: {answer.headers['x-prompt-chars']}" in page


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, [("limits", 0, 100), ("queue", 100, 300), ("upstream", 400, 1100), ("answer", 1500, 500)]),
        ({"waits": None, "first_milliseconds": 2000}, [("upstream", 0, 2000)]),
        ({"outcome": "failed", "first_milliseconds": None, "waits": None}, [("upstream", 0, 2000)]),
        (
            {"outcome": "refused", "first_milliseconds": None, "waits": "queue=1999"},
            [("queue", 0, 1999), ("rest", 1999, 1)],
        ),
        ({"outcome": "refused", "first_milliseconds": None, "waits": "limits=2001"}, [("limits", 0, 2000)]),
        ({"milliseconds": 0, "first_milliseconds": 0, "waits": None}, []),
    ],
)
def test_a_time_line_adds_up(fields: dict[str, Any], steps: list[tuple[str, int, int]]) -> None:
    """Steps follow each other without a gap, never reach beyond the end, and those that took no time are left out."""
    assert [(one.step, one.begins, one.milliseconds) for one in time_line({**_ROW, **fields})] == steps


def test_headers_are_those_of_an_answer_that_began() -> None:
    """As they were sent; a request without an answer, or of an older version, has nothing but its id."""
    assert known_headers(_ROW) == {
        "x-request-id": "req_1",
        "x-session-action": "continued",
        "x-prompt-chars": "986/1000",
        "x-context-dropped": "2",
        "x-context-shortened": "0",
        "x-provider": "second",
        "x-fallback": "first=upstream_timeout, small=unfit",
    }
    assert known_headers({**_ROW, "prompt_in_tokens": 1})["x-prompt-tokens"] == "986/1000"
    for unknown in ({"outcome": "failed"}, {"action": None, "prompt_limit": None}):
        assert known_headers({**_ROW, **unknown}) == {"x-request-id": "req_1"}
    cut_off = {**_ROW, "outcome": "abandoned", "streamed": 1}
    assert "x-provider" in known_headers(cut_off)
    assert "x-provider" not in known_headers({**cut_off, "first_milliseconds": None})
