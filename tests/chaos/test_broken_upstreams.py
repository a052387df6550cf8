"""Upstreams that can't be found, refuse, stay silent, or speak something that is no HTTP."""

import socket
import threading
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.web import PAGE_PATH
from tests.chaos.conftest import Watch
from tests.chaos.rawsite import RawSite, Trouble, raw_site
from tests.ports import free_port

NOWHERE = "no-such-host.invalid"
OK = b"HTTP/1.1 200 OK\r\n"
# Says what a message meets, with the status and code for it.
BROKEN_ANSWERS = {
    "garbage": (Trouble(b"\x16\x03\x01\x02\x00garbage\xff\r\n\r\n"), 502, "unexpected_reply"),
    "HTTP/0.9": (Trouble(b"<html><body>Hello</body></html>\r\n"), 502, "unexpected_reply"),
    "another protocol": (Trouble(b"SSH-2.0-OpenSSH_9.2p1\r\n"), 502, "unexpected_reply"),
    "HTTP/2": (Trouble(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d"), 502, "unexpected_reply"),
    "a status that is none": (Trouble(b"HTTP/1.1 99999 Odd\r\n\r\n"), 502, "unexpected_reply"),
    "a switch of protocols": (
        Trouble(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", holds=True),
        *(502, "site_changed"),
    ),
    "a goodbye": (Trouble(), 503, "upstream_unavailable"),
    "half a head": (Trouble(OK + b"Content-Ty"), 503, "upstream_unavailable"),
    "half a body": (Trouble(OK + b"Content-Length: 100\r\n\r\n{"), 503, "upstream_unavailable"),
    "two lengths": (Trouble(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello"), 502, "unexpected_reply"),
    "a chunk of no size": (Trouble(OK + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhi\r\n"), 502, "unexpected_reply"),
    "what can't be unpacked": (
        # Whole as HTTP: without the header the connection would be used again while the site closes it.
        Trouble(OK + b"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
        *(502, "unexpected_reply"),
    ),
    "endless headers": (Trouble(OK, repeats=b"X-More: yes\r\n" * 100), 502, "unexpected_reply"),
    "an endless header": (Trouble(OK + b"X-More: ", repeats=b"yes" * 1000), 502, "unexpected_reply"),
    "an endless body": (Trouble(OK + b"Connection: close\r\n\r\n", repeats=b"x" * 4096), 502, "unexpected_reply"),
}
SILENCES = {
    "no word": Trouble(holds=True),
    "half a head and no more": Trouble(OK + b"Content-Ty", holds=True),
    "half a body and no more": Trouble(OK + b"Content-Length: 100\r\n\r\n{", holds=True),
}
# The same for the page, which another library reads.
BROKEN_PAGES = {
    "garbage": (BROKEN_ANSWERS["garbage"][0], 503, "upstream_unavailable"),
    "HTTP/0.9": (BROKEN_ANSWERS["HTTP/0.9"][0], 503, "upstream_unavailable"),
    "a goodbye": (Trouble(), 503, "upstream_unavailable"),
    "a redirect to itself": (
        Trouble(b"HTTP/1.1 302 Found\r\nLocation: /chat/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        *(503, "upstream_unavailable"),
    ),
    "half a body": (BROKEN_ANSWERS["half a body"][0], 503, "upstream_unavailable"),
    "a chunk of no size": (BROKEN_ANSWERS["a chunk of no size"][0], 503, "upstream_unavailable"),
    "what can't be unpacked": (
        Trouble(OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
        *(503, "upstream_unavailable"),
    ),
    "no word": (SILENCES["no word"], 503, "upstream_unavailable"),
}
ENDLESS_PAGES = {
    "head": Trouble(OK + b"X-Slow: ", repeats=b"x", every=0.05),
    "body": Trouble(OK + b"Content-Length: 100000\r\n\r\n", repeats=b"x", every=0.05),
    "chunks": Trouble(OK + b"Transfer-Encoding: chunked\r\n\r\n", repeats=b"1\r\nx\r\n", every=0.05),
    "trailers": Trouble(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", repeats=b"X-More: yes\r\n", every=0.05),
    "flood of continues": Trouble(repeats=b"HTTP/1.1 100 Continue\r\n\r\n" * 100, every=0.001),
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_an_answer_that_is_no_http_is_a_typed_error(raw: RawSite, watch: Watch, name: str) -> None:
    """Whatever bytes come back, both modes get the same status and code, from one message each."""
    raw.message_trouble, status, code = BROKEN_ANSWERS[name]
    with watch(mend=raw.recover, upstream_url=raw.ajax_url, max_reply_bytes=100_000, max_retries=0) as gateway:
        for stream in (False, True):
            heard = gateway.call(stream=stream).hear()
            assert (heard.status, heard.code, heard.complete) == (status, code, False)
        assert gateway.outcomes() == {("failed", code): 2}
        assert raw.wait_for(messages=2, open=0)


@pytest.mark.parametrize("name", SILENCES)
def test_an_upstream_that_falls_silent_is_a_504(raw: RawSite, watch: Watch, name: str) -> None:
    """REQUEST_TIMEOUT ends the wait in both modes, and the connection with it."""
    raw.message_trouble = SILENCES[name]
    with watch(mend=raw.recover, upstream_url=raw.ajax_url, request_timeout=1) as gateway:
        calls = [gateway.call(stream=stream) for stream in (False, True)]
        heard = [call.hear() for call in calls]
        assert [(one.status, one.code) for one in heard] == [(504, "upstream_timeout")] * 2
        assert gateway.outcomes() == {("failed", "upstream_timeout"): 2}
        assert raw.wait_for(messages=2, open=0)


@pytest.mark.parametrize("name", BROKEN_PAGES)
def test_a_page_that_cannot_be_read_is_a_typed_503(raw: RawSite, watch: Watch, name: str) -> None:
    """Without its nonce no message is sent; /ready says why, and the gateway finds back by itself."""
    raw.page_trouble, status, code = BROKEN_PAGES[name]
    with watch(mend=raw.recover, chat_page_url=raw.page_url, page_timeout=0.3, max_retries=0) as gateway:
        heard = gateway.storm(5) + gateway.storm(5, stream=True)
        assert {(one.status, one.code) for one in heard} == {(status, code)}
        assert gateway.outcomes() == {("failed", code): 10}
        ready, details = gateway.readiness()
        assert (ready, details["nonce"], details["nonce_failure"]) == (503, "failing", code)
        assert raw.seen.messages == 0


@pytest.mark.parametrize("name", ENDLESS_PAGES)
def test_a_page_that_drips_is_let_go(raw: RawSite, watch: Watch, name: str) -> None:
    """PAGE_TIMEOUT ends a fetch with its connection and its thread, whatever drips."""
    raw.page_trouble = ENDLESS_PAGES[name]
    with watch(mend=raw.recover, chat_page_url=raw.page_url, page_timeout=0.3, max_retries=0) as gateway:
        heard = gateway.storm(5)
        assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 5}
        raw.recover()
        assert raw.wait_for(open=0)
        gateway.until(lambda: not [thread for thread in threading.enumerate() if thread.name == "kimi-page"])


def test_a_refused_connection_to_the_page_is_a_503_until_somebody_listens(watch: Watch) -> None:
    """Where nobody listens the gateway starts all the same and says what it lacks; later somebody does listen."""
    port = free_port()
    with ExitStack() as later:
        mend = partial(later.enter_context, running(Behaviour(), port=port))
        with watch(mend=mend, chat_page_url=f"http://127.0.0.1:{port}{PAGE_PATH}", max_retries=0) as gateway:
            heard = gateway.storm(5) + gateway.storm(5, stream=True)
            assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
            assert gateway.outcomes() == {("failed", "upstream_unavailable"): 10}
            ready, details = gateway.readiness()
            assert (ready, details["nonce_failure"]) == (503, "upstream_unavailable")


def test_a_refused_connection_for_messages_is_a_503_until_somebody_listens(watch: Watch) -> None:
    """The page is there and what takes the messages isn't: nothing is wrong with the nonce, and it comes back."""
    port = free_port()
    with ExitStack() as later:
        mend = partial(later.enter_context, raw_site(port))
        with watch(mend=mend, upstream_url=f"http://127.0.0.1:{port}/", max_retries=0) as gateway:
            heard = gateway.storm(5) + gateway.storm(5, stream=True)
            assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
            assert gateway.outcomes() == {("failed", "upstream_unavailable"): 10}
            assert gateway.readiness()[0] == 200


def test_a_page_whose_name_is_unknown_is_a_503_until_it_is_known(
    site: LiveSimulator, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DNS the gateway starts and answers with a typed error in both modes; with it, it serves."""
    names = _Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    settings = {"chat_page_url": site.page_url.replace("127.0.0.1", NOWHERE), "upstream_url": site.ajax_url}
    with watch(mend=names.learn, max_retries=0, **settings) as gateway:
        heard = gateway.storm(5) + gateway.storm(5, stream=True)
        assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 10}
        ready, details = gateway.readiness()
        assert (ready, details["nonce_failure"]) == (503, "upstream_unavailable")
        assert site.site.counters.messages == 0


def test_a_name_that_stays_unknown_harms_nothing_else(watch: Watch) -> None:
    """Messages to a host that doesn't exist are typed errors, models and sessions are still there, nothing leaks."""
    with watch(mend=None, upstream_url=f"http://{NOWHERE}/wp-admin/admin-ajax.php", max_retries=0) as gateway:
        heard = gateway.storm(5) + gateway.storm(5, stream=True)
        assert {(one.status, one.code) for one in heard} == {(503, "upstream_unavailable")}
        assert gateway.outcomes() == {("failed", "upstream_unavailable"): 10}
        assert [gateway.http.get(path).status_code for path in ("/health", "/v1/models", "/v1/sessions")] == [200] * 3


class _Names:
    """The resolver of this machine, which comes to know one more name."""

    def __init__(self) -> None:
        self._look_up = socket.getaddrinfo
        self._known = False

    def learn(self) -> None:
        self._known = True

    def look_up(self, host: Any, *rest: Any, **options: Any) -> Any:
        return self._look_up("127.0.0.1" if self._known and host == NOWHERE else host, *rest, **options)
