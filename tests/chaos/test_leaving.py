"""Clients that leave, at every stage of their request and in both ways: nothing of it goes on, others are served."""

import socket
from urllib.parse import urlsplit

import pytest

from simulator.live import LiveSimulator
from tests.chaos.client import Call, Leaving
from tests.chaos.conftest import Watch
from tests.chaos.rawsite import RawSite
from tests.live import WAIT_SECONDS

BOTH_WAYS = pytest.mark.parametrize("how", ["politely", "rudely"])
# Each way and each mode; nothing in the gateway could tell one combination from the other two.
WAYS_AND_MODES = pytest.mark.parametrize(("how", "stream"), [("politely", False), ("rudely", True)])
UNANSWERED = 'kimi_http_requests_total{method="POST",route="/v1/chat/completions",status="499"}'
ANSWERED = UNANSWERED.replace("499", "200")


@BOTH_WAYS
@pytest.mark.parametrize(
    "said",
    [b"", b"POST /v1/chat/compl", b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthoriz"],
    ids=["nothing", "half a line", "half a head"],
)
def test_a_client_that_leaves_before_its_request_is_one_leaves_no_trace(
    watch: Watch, said: bytes, how: Leaving
) -> None:
    """No request has begun: none is counted, and the connection is closed."""
    with watch() as gateway:
        address = urlsplit(gateway.gateway.base_url)
        connection = socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS)
        connection.sendall(said)
        Call(connection).leave(how)
        assert gateway.outcomes() == {}


@BOTH_WAYS
def test_a_client_that_leaves_before_its_body_is_an_unanswered_request(watch: Watch, how: Leaving) -> None:
    """Half a body and no more is a 499 for the metrics, and never became a call."""
    with watch() as gateway:
        call = Call(gateway.gateway.send_raw(b'{"messages": [{"role"', 1000))
        gateway.until(lambda: gateway.metrics()["kimi_http_requests_in_flight"] == 2)
        call.leave(how)
        gateway.until(lambda: gateway.metrics().get(UNANSWERED) == 1)
        assert gateway.outcomes() == {}


@WAYS_AND_MODES
def test_a_client_that_leaves_the_queue_makes_room(
    site: LiveSimulator, watch: Watch, how: Leaving, stream: bool
) -> None:
    """Its place is free at once, and nothing is sent to the site for it; who waited behind it is served."""
    site.site.update(failure="hang", failure_times=1)
    with watch(upstream_concurrency=1, upstream_queue_size=2) as gateway:
        served = gateway.call()
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        leaving = gateway.call(stream=stream)
        gateway.until(lambda: gateway.gauge("queue_depth") == 1)
        patient = gateway.call(stream=stream)
        gateway.until(lambda: gateway.gauge("queue_depth") == 2)
        leaving.leave(how)
        gateway.until(lambda: gateway.gauge("queue_depth") == 1)
        assert gateway.outcomes() == {("abandoned", ""): 1}
        assert gateway.metrics()[UNANSWERED] == 1
        served.leave(how)
        assert patient.hear().status == 200
        assert gateway.outcomes_of(3) == {("abandoned", ""): 2, ("completed", ""): 1}
        assert site.site.counters.messages == 2


@WAYS_AND_MODES
def test_a_client_that_leaves_while_its_session_is_busy_gives_up_its_turn(
    site: LiveSimulator, watch: Watch, how: Leaving, stream: bool
) -> None:
    """It waits for another request of its session no longer; who waited behind it gets the session."""
    site.site.update(failure="hang", failure_times=1)
    with watch() as gateway:
        first = gateway.call(user="ada")
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        leaving = gateway.call(user="ada", stream=stream)
        gateway.until(lambda: gateway.waiting_for_session() == 2)
        patient = gateway.call(user="ada", stream=stream)
        gateway.until(lambda: gateway.waiting_for_session() == 3)
        leaving.leave(how)
        gateway.until(lambda: gateway.waiting_for_session() == 2)
        assert gateway.outcomes() == {("abandoned", ""): 1}
        first.leave(how)
        assert patient.hear().status == 200
        assert gateway.outcomes_of(3) == {("abandoned", ""): 2, ("completed", ""): 1}
        assert gateway.http.get("/v1/sessions/ada").json()["message_count"] == 2


@WAYS_AND_MODES
def test_a_client_that_leaves_while_the_page_is_fetched_takes_it_from_nobody(
    raw: RawSite, watch: Watch, how: Leaving, stream: bool
) -> None:
    """Its slot is free at once; the fetch goes on for the other who waits for the same nonce, who is served."""
    raw.answers.clear()
    with watch(chat_page_url=raw.page_url, upstream_concurrency=5) as gateway:
        leaving, patient = gateway.call(stream=stream), gateway.call(stream=stream)
        gateway.until(lambda: gateway.gauge("slots_free") == 3)
        leaving.leave(how)
        gateway.until(lambda: gateway.gauge("slots_free") == 4)
        raw.answers.set()
        assert patient.hear().status == 200
        assert gateway.outcomes_of(2) == {("abandoned", ""): 1, ("completed", ""): 1}
        assert (raw.seen.pages, raw.seen.messages) == (1, 1)


def test_a_page_that_fails_after_all_who_waited_for_it_have_left_is_nobodys_error(
    site: LiveSimulator, watch: Watch
) -> None:
    """The failure of a fetch that only clients wanted who are gone is kept for /ready, and in no log as unhandled."""
    with watch(page_timeout=3) as gateway:
        gateway.until(lambda: gateway.readiness()[1]["nonce"] == "fresh")
        site.site.rotate()
        site.site.update(page_failure="hang", page_failure_times=1)
        leaving = [gateway.call(stream=stream) for stream in (False, True)]
        assert site.site.wait_for(lambda counters: counters.pages == 2)
        for call in leaving:
            call.leave()
        assert gateway.outcomes_of(2) == {("abandoned", ""): 2}
        gateway.until(lambda: gateway.readiness()[1].get("nonce_failure") == "upstream_unavailable")


@WAYS_AND_MODES
def test_a_client_that_leaves_before_the_site_has_answered_takes_its_message_along(
    site: LiveSimulator, watch: Watch, how: Leaving, stream: bool
) -> None:
    """The site sees its client go as soon as ours has gone."""
    site.site.update(failure="hang")
    with watch() as gateway:
        call = gateway.call(stream=stream)
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        call.leave(how)
        assert site.site.wait_for(lambda counters: counters.abandoned == 1)
        assert gateway.outcomes_of(1) == {("abandoned", ""): 1}
        gateway.until(lambda: gateway.metrics().get(UNANSWERED) == 1)


@WAYS_AND_MODES
def test_a_client_that_leaves_while_a_failure_is_slept_off_is_not_tried_again_for(
    site: LiveSimulator, watch: Watch, how: Leaving, stream: bool
) -> None:
    """In the pause before a retry there is nobody at the site to notice; the retry isn't sent all the same."""
    site.site.update(failure="server_error")
    with watch() as gateway:
        call = gateway.call(stream=stream)
        assert site.site.wait_for(lambda counters: counters.failures == 1 and counters.in_flight == 0)
        call.leave(how)
        assert gateway.outcomes_of(1) == {("abandoned", ""): 1}
        assert site.site.counters.messages == 1


@BOTH_WAYS
def test_a_client_that_leaves_at_the_first_byte_takes_its_message_along(
    site: LiveSimulator, watch: Watch, how: Leaving
) -> None:
    """A stream that is open and still silent is no different: the site sees its client go."""
    site.site.update(failure="hang")
    with watch(stream_grace_seconds=0.01, heartbeat_seconds=0.05) as gateway:
        call = gateway.call(stream=True).opened()
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        assert gateway.metrics()["kimi_streams_active"] == 1
        call.leave(how)
        assert site.site.wait_for(lambda counters: counters.abandoned == 1)
        assert gateway.outcomes_of(1) == {("abandoned", ""): 1}
        gateway.until(lambda: gateway.metrics().get(ANSWERED) == 1)


@BOTH_WAYS
def test_a_client_that_leaves_while_it_is_typed_to_has_had_its_turn(
    site: LiveSimulator, watch: Watch, how: Leaving
) -> None:
    """The site's work is done and remembered; only the typing ends, and frees nothing that was still held."""
    site.site.update(reply="A long answer. " * 2000)
    with watch(typing_piece_size=200, typing_delay_seconds=1, typing_max_seconds=1000) as gateway:
        call = gateway.call(stream=True, user="ada").opened()
        assert b"data: " in call.read(20)
        assert gateway.outcomes_of(1) == {("completed", ""): 1}
        assert (gateway.gauge("slots_free"), gateway.waiting_for_session()) == (32, 0)
        assert gateway.metrics()["kimi_streams_active"] == 1
        call.leave(how)
        gateway.until(lambda: gateway.metrics()["kimi_streams_active"] == 0)
        assert gateway.http.get("/v1/sessions/ada").json()["message_count"] == 2
