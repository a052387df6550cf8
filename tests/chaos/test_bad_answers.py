"""A site that answers, but badly: what becomes of it in each mode, how often it is asked, and that it passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from simulator.live import LiveSimulator
from tests.chaos.client import Heard, hear_all
from tests.chaos.conftest import Watch
from tests.chaos.watch import Watched

# One slot and hardly any grace: a stream behind another request opens before its own fate is decided.
OPENED = {"upstream_concurrency": 1, "stream_grace_seconds": 0.001}


@dataclass(frozen=True, slots=True)
class Case:
    """A way to fail, and what the client is told; `settings` that make it quick."""

    knobs: Mapping[str, object]
    status: int
    code: str
    retry_after: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


ONCE = {"max_retries": 0}
CASES = {
    "reset": Case({"failure": "reset"}, 503, "upstream_unavailable", settings=ONCE),
    "reset_mid_body": Case({"failure": "reset_mid_body"}, 503, "upstream_unavailable", settings=ONCE),
    "truncated_json": Case({"failure": "truncated_json"}, 502, "site_changed"),
    "html_with_200": Case({"failure": "html"}, 502, "site_changed"),
    "huge": Case(
        {"failure": "huge", "huge_bytes": 3_000_000}, 502, "unexpected_reply", settings={"max_reply_bytes": 100_000}
    ),
    "slow_drip": Case({"failure": "slow_drip"}, 504, "upstream_timeout", settings={"request_timeout": 1}),
    "rate_limited": Case({"failure": "rate_limited", "retry_after_s": 7}, 429, "upstream_rate_limited", 7),
    "rate_limited_for_unknown_time": Case(
        {"failure": "rate_limited", "retry_after_s": None}, 429, "upstream_rate_limited", 5
    ),
    "overloaded": Case({"failure": "overloaded", "retry_after_s": 7}, 503, "upstream_unavailable", 7),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_answer_is_a_typed_error_and_is_asked_for_once(site: LiveSimulator, watch: Watch, name: str) -> None:
    """Both modes get the status and the code, and the metrics have it, too; the site gets one message for each.

    A site that wants fewer requests may have said so before the second is sent.
    """
    case = CASES[name]
    site.site.update(**case.knobs)
    with watch(**case.settings) as gateway:
        calls = [gateway.call(stream=stream) for stream in (False, True)]
        told = Heard(case.status, case.code, case.retry_after, "", complete=False)
        assert hear_all(calls) == [told, told]
        assert gateway.outcomes() == {("failed", case.code): 2}
        assert site.site.counters.messages in ((1, 2) if case.status == 429 else (2,))


@pytest.mark.parametrize("name", CASES)
def test_a_bad_answer_after_the_first_byte_is_an_event(site: LiveSimulator, watch: Watch, name: str) -> None:
    """A stream that is open already ends with the code as its last event, and without [DONE]."""
    case = CASES[name]
    with watch(**case.settings, **OPENED) as gateway:
        heard = _met_by_an_opened_stream(site, gateway, case)
        assert heard == Heard(200, case.code, None, "", complete=False)
        outcomes = gateway.outcomes_of(2)
        # On a busy machine the first may have timed out before it is given up.
        assert outcomes.keys() <= {("failed", case.code), ("abandoned", "")}
        assert sum(outcomes.values()) == site.site.counters.messages == 2


def _met_by_an_opened_stream(site: LiveSimulator, gateway: Watched, case: Case) -> Heard:
    """How a stream fares that meets the trouble after its first byte: it had to wait behind another request."""
    site.site.update(failure="hang")
    first = gateway.call()
    assert site.site.wait_for(lambda counters: counters.in_flight == 1)
    stream = gateway.call(stream=True).opened()
    site.site.update(**case.knobs)
    first.leave()
    return stream.hear()


@pytest.mark.parametrize(("failure", "stream"), [("reset", False), ("reset_mid_body", True), ("server_error", True)])
def test_a_passing_trouble_is_retried_and_seen_by_nobody(
    site: LiveSimulator, watch: Watch, failure: str, stream: bool
) -> None:
    """What was lost once on the way is sent once more, and the client gets its answer."""
    site.site.update(failure=failure, failure_times=1)
    with watch() as gateway:
        heard = gateway.call(stream=stream).hear()
        assert (heard.status, heard.complete) == (200, True)
        assert gateway.outcomes() == {("completed", ""): 1}
        assert site.site.counters.messages == 2


@pytest.mark.parametrize("failure", ["reset_mid_body", "bad_gateway"])
def test_a_lasting_trouble_is_retried_as_often_as_is_set_and_no_more(
    site: LiveSimulator, watch: Watch, failure: str
) -> None:
    """MAX_RETRIES=1 means two messages, whatever breaks them; the client sees the last failure."""
    site.site.update(failure=failure)
    with watch(max_retries=1) as gateway:
        heard = gateway.call().hear()
        assert (heard.status, heard.code) == (503, "upstream_unavailable")
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 1}
        assert site.site.counters.messages == 2


def test_a_session_survives_a_bad_answer(site: LiveSimulator, watch: Watch) -> None:
    """A turn that failed is not remembered, and the session goes on where it was."""
    with watch() as gateway:
        told = {"messages": [{"role": "user", "content": "My name is Ada."}], "user": "ada"}
        assert gateway.call(**told).hear().status == 200
        site.site.update(failure="truncated_json")
        assert gateway.call(user="ada").hear().code == "site_changed"
        site.site.update(failure=None)
        asked = {"messages": [{"role": "user", "content": "What is my name?"}], "user": "ada"}
        assert gateway.call(**asked).hear().text == "Your name is Ada."
        assert gateway.outcomes() == {("completed", ""): 2, ("failed", "site_changed"): 1}
