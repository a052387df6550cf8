"""The Kimi provider behind a running gateway, in front of a simulated site that misbehaves."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import LiveGateway

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
AT_ONCE = 200


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json=HELLO)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ("nonce_refused", 503, "nonce_rejected"),
        ("nonce_refused_json", 503, "nonce_rejected"),
        ("refused", 502, "upstream_refused"),
        ("refused_object", 502, "upstream_refused"),
        ("refused_without_data", 502, "upstream_refused"),
        ("moderated", 400, "content_filter"),
        ("unknown_action", 502, "site_changed"),
        ("html", 502, "site_changed"),
        ("other_json", 502, "site_changed"),
        ("database_down", 502, "site_changed"),
        ("php_fatal", 503, "upstream_unavailable"),
        ("maintenance", 503, "upstream_unavailable"),
        ("server_error", 503, "upstream_unavailable"),
        ("bad_gateway", 503, "upstream_unavailable"),
        ("gateway_timeout", 504, "upstream_timeout"),
        ("cloudflare_timeout", 504, "upstream_timeout"),
        ("too_large", 400, "context_length_exceeded"),
        ("rate_limited", 429, "upstream_rate_limited"),
        ("rate_limited_json", 429, "upstream_rate_limited"),
        ("overloaded", 503, "upstream_unavailable"),
        ("challenge", 503, "cloudflare_challenge"),
        ("challenge_202", 503, "cloudflare_challenge"),
        ("challenge_429", 503, "cloudflare_challenge"),
        ("just_a_moment", 503, "cloudflare_challenge"),
        ("forbidden", 503, "upstream_blocked"),
        ("reset", 503, "upstream_unavailable"),
        ("reset_mid_body", 503, "upstream_unavailable"),
        ("truncated_json", 502, "site_changed"),
        ("empty_message", 502, "empty_reply"),
        ("redirect", 502, "site_changed"),
        ("hang", 504, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_failure_of_the_site_has_its_status_and_code(
    site: LiveSimulator, start_gateway: StartGateway, failure: str, status: int, code: str, stream: bool
) -> None:
    """What the site does wrong becomes a typed error with its true HTTP status, in both modes, without its HTML."""
    site.site.update(failure=failure)
    with (
        start_gateway(max_retries=0, request_timeout=2 if failure == "hang" else 20) as gateway,
        gateway.client() as http,
    ):
        response = http.post("/v1/chat/completions", json={**HELLO, "stream": stream})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert "<" not in error["message"]
    if status == 429:
        assert int(response.headers["retry-after"]) >= 1


def test_a_reply_that_is_too_large_is_refused(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """The gateway reads no more of an answer than MAX_REPLY_BYTES."""
    site.site.update(failure="huge", huge_bytes=200_000)
    with start_gateway(max_reply_bytes=100_000, max_retries=0) as gateway, gateway.client() as http:
        response = ask(http)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "unexpected_reply")


@pytest.mark.parametrize(
    "failure", ["server_error", "bad_gateway", "reset", "reset_mid_body", "nonce_refused", "nonce_refused_json"]
)
def test_a_passing_trouble_is_not_seen_by_the_client(site: LiveSimulator, client: httpx.Client, failure: str) -> None:
    """A failure that happens once is mended by another try: the client gets its answer."""
    site.site.update(failure=failure, failure_times=1)
    assert ask(client).status_code == 200


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("challenge", "cloudflare_challenge"),
        ("no_nonce", "nonce_missing"),
        ("broken_json", "nonce_missing"),
        ("server_error", "upstream_unavailable"),
        ("maintenance", "upstream_unavailable"),
        ("reset", "upstream_unavailable"),
        ("empty", "nonce_missing"),
        ("hang", "upstream_unavailable"),
        ("slow_drip", "upstream_unavailable"),
        ("huge", "upstream_unavailable"),
    ],
)
def test_a_page_without_a_nonce_is_a_typed_503(
    site: LiveSimulator, start_gateway: StartGateway, failure: str, code: str
) -> None:
    """Start-up doesn't need the page; a request that does says what is wrong with it, and so does /ready."""
    site.site.update(page_failure=failure, huge_bytes=8_000_000, drip_s=0.01)
    timeout = 0.5 if failure in ("hang", "slow_drip") else 20
    with start_gateway(max_retries=0, page_timeout=timeout) as gateway, gateway.client() as http:
        assert http.get("/health").status_code == 200
        response, ready = ask(http), http.get("/ready")
    assert (response.status_code, response.json()["error"]["code"]) == (503, code)
    assert (ready.status_code, ready.json()["providers"]["kimi-web"]["nonce_failure"]) == (503, code)


@pytest.mark.parametrize("style", ["plain", "minified", "nested", "multiline", "foreign_ajax_url"])
def test_the_page_is_understood_in_every_style(site: LiveSimulator, client: httpx.Client, style: str) -> None:
    """However WordPress and its optimisers print the script, messages get through, and to the page's own host only."""
    site.site.update(page_style=style)
    site.site.rotate()
    assert ask(client).status_code == 200


def test_cookies_and_user_agent_of_the_page_go_along(site: LiveSimulator, client: httpx.Client) -> None:
    """A site that binds its nonce to a visitor's cookie and browser takes the message."""
    site.site.update(require_cookie=True, require_same_user_agent=True)
    site.site.rotate()
    assert ask(client).status_code == 200
    assert "kimi_visitor" in site.site.messages[-1].cookies
    assert "Mozilla" in site.site.messages[-1].user_agent


def test_a_challenge_that_a_new_visit_clears_is_not_seen_by_the_client(
    site: LiveSimulator, client: httpx.Client
) -> None:
    """The clearance cookie of a fresh page visit lets the message through."""
    assert ask(client).status_code == 200
    site.site.update(failure="challenge", challenge_cleared_by_page=True)
    assert ask(client).status_code == 200


def test_a_cached_page_s_stale_nonce_is_got_past(site: LiveSimulator, client: httpx.Client) -> None:
    """Page fetches go past caches that would hand out an expired nonce."""
    site.site.update(stale_pages=100)
    site.site.rotate()
    assert ask(client).status_code == 200


def test_200_requests_with_a_stale_nonce_cause_one_page_fetch(site: LiveSimulator, gateway: LiveGateway) -> None:
    """However many requests meet a stale nonce at once, the page is fetched once, and all of them are answered."""
    with gateway.client() as http:
        assert ask(http).status_code == 200
        pages = site.site.counters.pages
        site.site.rotate()
        site.site.update(latency_s=0.2)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = list(pool.map(lambda _: ask(http).status_code, range(AT_ONCE)))
    assert statuses == [200] * AT_ONCE
    assert site.site.counters.pages == pages + 1


def test_a_nonce_that_is_gone_for_good_gives_503_and_no_storm(site: LiveSimulator, gateway: LiveGateway) -> None:
    """A site that refuses every nonce is left alone: a hundred requests cause a handful of fetches and messages."""
    site.site.update(nonces_never_valid=True)
    with gateway.client() as http:
        answers = [ask(http) for _ in range(100)]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} <= {"nonce_rejected", "upstream_unavailable"}
    assert all("retry-after" in answer.headers for answer in answers[1:])
    assert site.site.counters.pages < 10
    assert site.site.counters.messages < 20


def test_slow_answers_hold_up_nobody_and_need_no_threads(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """While 200 requests wait for a slow site, /health answers, and the gateway runs no more threads than before."""
    site.site.update(failure="hang")
    with start_gateway(upstream_concurrency=AT_ONCE) as gateway, gateway.client() as http:
        assert http.get("/health").status_code == 200
        idle = {thread.name for thread in threading.enumerate()}
        waiting = [gateway.send() for _ in range(AT_ONCE)]
        assert site.site.wait_for(lambda counters: counters.in_flight == AT_ONCE)
        assert http.get("/health").status_code == 200
        assert http.get("/v1/models").status_code == 200
        assert http.get("/v1/sessions").status_code == 200
        busy = {thread.name for thread in threading.enumerate()}
        for connection in waiting:
            connection.close()
        assert site.site.wait_for(lambda counters: counters.abandoned == AT_ONCE)
    assert busy <= idle


def test_all_providers_details_are_told_without_secrets(site: LiveSimulator, client: httpx.Client) -> None:
    """/ready tells the state of nonce and breaker, and not the nonce."""
    assert ask(client).status_code == 200
    ready = client.get("/ready")
    assert ready.json() == {
        "status": "ready",
        "sessions": "ready",
        "providers": {"kimi-web": {"status": "ready", "nonce": "fresh", "breaker": "closed"}},
    }


def test_one_upstream_session_for_each_conversation_if_wanted(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """KEEP_UPSTREAM_SESSION sends one id for all turns of a session; the default is a new one for each message."""

    def upstream_ids(keep: bool) -> list[str]:
        with start_gateway(keep_upstream_session=keep) as gateway, gateway.client() as http:
            for text in ("one", "two", "three"):
                body = {"user": "ada", "messages": [{"role": "user", "content": text}]}
                assert http.post("/v1/chat/completions", json=body).status_code == 200
        return [message.session_id for message in site.site.messages[-3:]]

    assert len(set(upstream_ids(keep=False))) == 3
    assert len(set(upstream_ids(keep=True))) == 1


@pytest.mark.parametrize(
    ("failure", "sent", "code"),
    [
        ("gateway_timeout", 1, "upstream_timeout"),
        ("cloudflare_timeout", 1, "upstream_timeout"),
        ("bad_gateway", 2, "upstream_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_message_that_may_have_been_read_is_not_sent_again(
    site: LiveSimulator, start_gateway: StartGateway, failure: str, sent: int, code: str, stream: bool
) -> None:
    """Who stopped waiting for the model says nothing about whether it was asked; other trouble is tried again."""
    site.site.update(failure=failure)
    with start_gateway(max_retries=1) as gateway, gateway.client() as http:
        response = http.post("/v1/chat/completions", json={**HELLO, "stream": stream})
    assert (response.json()["error"]["code"], site.site.counters.messages) == (code, sent)
