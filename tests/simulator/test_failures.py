import httpx
import pytest

from simulator.live import LiveSimulator
from tests.simulator.client import fetch_nonce, form, open_client, send

TITLES = {
    "html": (200, "Kimi Chat"),
    "database_down": (200, "Error establishing a database connection"),
    "php_fatal": (500, "There has been a critical error on this website."),
    "maintenance": (503, "scheduled maintenance"),
    "server_error": (500, "Internal Server Error"),
    "bad_gateway": (502, "Bad Gateway"),
    "gateway_timeout": (504, "Gateway Time-out"),
    "cloudflare_timeout": (524, "A timeout occurred"),
    "too_large": (413, "Too Large"),
    "rate_limited": (429, "Too Many Requests"),
    "overloaded": (503, "Unavailable"),
    "forbidden": (403, "Forbidden"),
    "challenge": (403, "Just a moment..."),
    "challenge_202": (202, "Just a moment..."),
    "challenge_429": (429, "Just a moment..."),
    "just_a_moment": (403, "Just a moment..."),
    "nonce_refused": (403, "-1"),
    "unknown_action": (400, "0"),
    "redirect": (301, ""),
}
BODIES = {
    "nonce_refused_json": {"success": False, "data": "Security check failed. Please refresh the page."},
    "refused": {"success": False, "data": "The message could not be processed."},
    "refused_object": {"success": False, "data": {"message": "The message could not be processed."}},
    "refused_list": {
        "success": False,
        "data": [{"code": "kimi_failed", "message": "The message could not be processed."}],
    },
    "refused_without_data": {"success": False},
    "moderated": {"success": False, "data": "Your message violates our content policy."},
    "other_json": {"status": "ok"},
    "empty_message": {"success": True, "data": {"message": ""}},
}


@pytest.mark.parametrize("failure", TITLES)
def test_html_failures(live: LiveSimulator, client: httpx.Client, failure: str) -> None:
    """A failure in HTML has its own status and text, and is logged and counted under its name."""
    live.site.update(failure=failure)
    answer = send(client, live)
    status, text = TITLES[failure]
    assert (answer.status_code, text in answer.text) == (status, True)
    assert answer.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert (live.site.counters.failures, live.site.messages[0].outcome) == (1, failure)


@pytest.mark.parametrize("failure", BODIES)
def test_json_failures(live: LiveSimulator, client: httpx.Client, failure: str) -> None:
    """A failure that the plugin reports comes as JSON with status 200."""
    live.site.update(failure=failure)
    answer = send(client, live)
    assert (answer.status_code, answer.json()) == (200, BODIES[failure])


def test_a_refusal_may_hold_html(live: LiveSimulator, client: httpx.Client) -> None:
    """One refusal has tags and a script in its text, which nobody should pass on."""
    live.site.update(failure="refused_html")
    assert "<script>" in send(client, live).json()["data"]


def test_a_rate_limit_may_come_as_json(live: LiveSimulator, client: httpx.Client) -> None:
    """The plugin's own rate limit is a JSON refusal with status 429."""
    live.site.update(failure="rate_limited_json")
    answer = send(client, live)
    assert (answer.status_code, answer.json()["success"]) == (429, False)


@pytest.mark.parametrize(
    ("failure", "marked"), [("challenge", True), ("challenge_202", True), ("just_a_moment", False)]
)
def test_challenges_are_marked(live: LiveSimulator, client: httpx.Client, failure: str, marked: bool) -> None:
    """Challenges carry Cloudflare's header, but for the one that is known by its page only."""
    live.site.update(failure=failure)
    assert (send(client, live).headers.get("cf-mitigated") == "challenge") is marked


@pytest.mark.parametrize(
    ("failure", "knob", "header"),
    [
        ("rate_limited", "default", "1"),
        ("maintenance", "default", "600"),
        ("overloaded", 7, "7"),
        ("overloaded", None, None),
        ("server_error", 7, None),
    ],
)
def test_retry_after(
    live: LiveSimulator, client: httpx.Client, failure: str, knob: str | int | None, header: str | None
) -> None:
    """Only failures that have a Retry-After send one, and the knob sets it or takes it away."""
    live.site.update(failure=failure, retry_after_s=knob)
    assert send(client, live).headers.get("Retry-After") == header


def test_a_failure_lasts_for_its_times(live: LiveSimulator, client: httpx.Client) -> None:
    """After n failed messages the site is well again, by itself."""
    live.site.update(failure="bad_gateway", failure_times=2)
    assert [send(client, live).status_code for _ in range(3)] == [502, 502, 200]
    assert live.site.behaviour.failure is None


def test_a_page_fetch_can_clear_the_challenge(live: LiveSimulator, client: httpx.Client) -> None:
    """With the knob on, who fetched the page carries a clearance and gets through; others still don't."""
    nonce = fetch_nonce(client, live)
    live.site.update(failure="challenge", challenge_cleared_by_page=True)
    assert client.post(live.ajax_url, data=form(nonce)).status_code == 403
    assert send(client, live).status_code == 200
    with open_client() as stranger:
        stranger.cookies.set("cf_clearance", "made-up")
        assert stranger.post(live.ajax_url, data=form(nonce)).status_code == 403


def test_a_new_page_alone_does_not_clear_the_challenge(live: LiveSimulator, client: httpx.Client) -> None:
    """Without the knob a challenge stays, however often the page is fetched."""
    live.site.update(failure="challenge")
    assert [send(client, live).status_code for _ in range(2)] == [403, 403]


def test_a_connection_can_break_before_the_answer(live: LiveSimulator, client: httpx.Client) -> None:
    """A reset leaves the client without a single byte, and is no abandoned message."""
    nonce = fetch_nonce(client, live)
    live.site.update(failure="reset")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post(live.ajax_url, data=form(nonce))
    assert live.site.wait_for(lambda counters: counters.in_flight == 0)
    assert (live.site.counters.failures, live.site.counters.abandoned) == (1, 0)


def test_a_connection_can_break_within_the_answer(live: LiveSimulator, client: httpx.Client) -> None:
    """A reset in mid-body delivers the status and a part, and then an error."""
    nonce = fetch_nonce(client, live)
    live.site.update(failure="reset_mid_body")
    with client.stream("POST", live.ajax_url, data=form(nonce)) as answer:
        assert answer.status_code == 200
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            answer.read()
    assert live.site.wait_for(lambda counters: counters.in_flight == 0)
    assert live.site.counters.abandoned == 0


def test_json_can_be_cut_in_a_complete_answer(live: LiveSimulator, client: httpx.Client) -> None:
    """HTTP may be in order while the JSON in it ends too early."""
    live.site.update(failure="truncated_json")
    answer = send(client, live)
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Unterminated"):
        answer.json()


def test_an_answer_can_drip(live: LiveSimulator, client: httpx.Client) -> None:
    """A slow answer is complete and valid in the end."""
    nonce = fetch_nonce(client, live)
    live.site.update(failure="slow_drip", drip_s=0, reply="slow")
    answer = client.post(live.ajax_url, data=form(nonce))
    assert answer.text == '{"success":true,"data":{"message":"slow"}}'


def test_an_answer_can_be_huge(live: LiveSimulator, client: httpx.Client) -> None:
    """A huge answer is valid JSON of the asked size, without a length up front."""
    live.site.update(failure="huge", huge_bytes=300_000)
    answer = send(client, live)
    assert "Content-Length" not in answer.headers
    assert len(answer.json()["data"]["message"]) == 300_000
