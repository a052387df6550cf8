import asyncio
import logging
import socket
import threading
from contextlib import suppress

import httpx
import pytest

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running, serve
from simulator.site import Counters, Site
from tests.simulator.client import fetch_nonce, form, send


async def test_a_client_that_leaves_is_counted(live: LiveSimulator) -> None:
    """A client that gives up on a silent site leaves no message under way, but an abandoned one."""
    live.site.update(failure="hang")
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        post = asyncio.create_task(client.post(live.ajax_url, data=form("")))
        assert await asyncio.to_thread(live.site.wait_for, lambda counters: counters.in_flight == 1)
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)
    assert await asyncio.to_thread(live.site.wait_for, lambda counters: counters.abandoned == 1)
    assert live.site.counters == Counters(messages=1, failures=1, abandoned=1, max_in_flight=1)
    assert live.site.messages[0].outcome == "abandoned"


@pytest.mark.parametrize("failure", ["slow_drip", "huge"])
def test_leaving_within_the_answer_counts_as_well(
    live: LiveSimulator, client: httpx.Client, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    """Leaving after the first bytes is leaving before the answer, too, and no error of the server's."""
    nonce = fetch_nonce(client, live)
    live.site.update(failure=failure, drip_s=0.01, reply="x" * 100_000, huge_bytes=10_000_000_000)
    with client.stream("POST", live.ajax_url, data=form(nonce)) as answer:
        assert 0 < len(next(answer.iter_raw())) < 100_000
    assert live.site.wait_for(lambda counters: counters.abandoned == 1)
    assert not _logged_by_the_server(caplog)


async def test_messages_in_flight_are_counted(live: LiveSimulator) -> None:
    """Concurrent messages are under way together, and their highest number is kept."""
    live.site.update(latency_s=3600)
    nonce = live.site.rotate()
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        posts = [asyncio.create_task(client.post(live.ajax_url, data=form(nonce))) for _ in range(5)]
        assert await asyncio.to_thread(live.site.wait_for, lambda counters: counters.in_flight == 5)
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
    assert await asyncio.to_thread(live.site.wait_for, lambda counters: counters.in_flight == 0)
    assert (live.site.counters.max_in_flight, live.site.counters.abandoned) == (5, 5)


def test_stopping_does_not_wait_for_hanging_clients() -> None:
    """The context ends while a client still hangs, its thread is gone, and nobody is said to have left."""
    with running(Behaviour(page_failure="hang", failure="hang")) as live:
        hanging = threading.Thread(target=_post_and_fail, args=(live.ajax_url,))
        hanging.start()
        assert live.site.wait_for(lambda counters: counters.in_flight == 1)
    hanging.join()
    assert live.site.counters.abandoned == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "kimi-simulator"]


def _post_and_fail(url: str) -> None:
    with suppress(httpx.HTTPError):
        httpx.post(url, data=form(""), timeout=60, trust_env=False)


def test_a_port_in_use_is_an_error_of_the_caller() -> None:
    """Whoever asks for a taken port is told so, not a thread's log."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(port)), running(port=port):
            pass


def test_nothing_is_logged(live: LiveSimulator, client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """The server logs neither accesses nor errors, not even when it breaks its own connections."""
    caplog.set_level(logging.INFO)
    send(client, live)
    for failure in ("reset", "reset_mid_body"):
        live.site.update(failure=failure)
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            send(client, live)
    assert not _logged_by_the_server(caplog)


def _logged_by_the_server(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]


async def test_the_simulator_can_be_served_in_the_own_loop() -> None:
    """`serve` listens until it is cancelled, and then frees its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = Site()
    server = asyncio.create_task(serve(site, "127.0.0.1", port))
    async with httpx.AsyncClient(trust_env=False) as client:
        assert await _status_once_up(client, f"http://127.0.0.1:{port}/chat/") == 200
    server.cancel()
    with suppress(asyncio.CancelledError):
        await server
    assert site.counters.pages == 1
    socket.create_server(("127.0.0.1", port)).close()


async def _status_once_up(client: httpx.AsyncClient, url: str) -> int:
    async with asyncio.timeout(10):
        while True:
            with suppress(httpx.ConnectError):
                return (await client.get(url)).status_code
