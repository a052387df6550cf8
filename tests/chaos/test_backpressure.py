"""Clients that read nothing: the gateway waits for them without hoarding, and serves the others meanwhile."""

import gc
import os
from pathlib import Path

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from simulator.live import LiveSimulator
from tests.chaos.client import hear_all
from tests.chaos.conftest import Watch
from tests.chaos.watch import Watched

MIB = 1024 * 1024
CLIENTS = 5
# Written character by character, each in an event of its own, this is 30 MiB: more than all socket buffers on the way.
REPLY = "0123456789" * 15_000


def _memory() -> int:
    """Resident bytes of this process, in which the site lives, too."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _held_up() -> int:
    """How many connections wait for their client to read."""
    return sum(thing.write_paused for thing in gc.get_objects() if type(thing) is FlowControl)


def _serves_others(site: LiveSimulator, gateway: Watched) -> None:
    site.site.update(reply=None)
    heard = gateway.storm(10) + gateway.storm(10, stream=True)
    assert {(one.status, one.complete) for one in heard} == {(200, True)}


@pytest.mark.parametrize("reads_later", [False, True])
def test_streams_that_nobody_reads_take_no_more_memory_than_their_text(
    site: LiveSimulator, watch: Watch, reads_later: bool
) -> None:
    """Far less is buffered than the events would take, slot and session are free, and a late reader gets it all."""
    site.site.update(reply=REPLY)
    with watch(typing_piece_size=1) as gateway:
        before = _memory()
        calls = [gateway.call(stream=True, user=f"user-{number}").opened() for number in range(CLIENTS)]
        gateway.until(lambda: _held_up() == CLIENTS)
        held_up = _memory()
        assert held_up - before < 60 * MIB
        assert gateway.outcomes_of(CLIENTS) == {("completed", ""): CLIENTS}
        assert (gateway.gauge("slots_free"), gateway.waiting_for_session()) == (32, 0)
        assert gateway.metrics()["kimi_streams_active"] == CLIENTS
        _serves_others(site, gateway)
        assert _memory() - held_up < 20 * MIB
        reader, *others = calls
        for call in others:
            call.leave()
        if not reads_later:
            reader.leave()
            return
        heard = reader.hear()
        assert (heard.text == REPLY, heard.complete) == (True, True)


def test_a_text_that_is_typed_out_to_nobody_holds_up_no_other(site: LiveSimulator, watch: Watch) -> None:
    """While one client reads nothing others are typed to, to their end; it gets all of its text when it reads."""
    reply = "word " * 3_000_000
    site.site.update(reply=reply)
    with watch(typing_delay_seconds=0.005, typing_max_seconds=1, max_reply_bytes=20 * MIB) as gateway:
        call = gateway.call(stream=True).opened()
        gateway.until(lambda: _held_up() == 1)
        _serves_others(site, gateway)
        assert _held_up() == 1
        heard = call.hear()
        assert (heard.text == reply, heard.complete) == (True, True)


def test_whole_answers_that_nobody_reads_hold_up_nobody(site: LiveSimulator, watch: Watch) -> None:
    """An answer of megabytes waits in its connection, its request is over, and it can be read later."""
    site.site.update(reply="0123456789" * 300_000)
    with watch() as gateway:
        before = _memory()
        calls = [gateway.call() for _ in range(CLIENTS)]
        assert gateway.outcomes_of(CLIENTS) == {("completed", ""): CLIENTS}
        _serves_others(site, gateway)
        gateway.until(lambda: gateway.metrics()["kimi_http_requests_in_flight"] == 1)
        assert _memory() - before < 100 * MIB
        reader, *others = calls
        for call in others:
            call.leave()
        assert len(reader.hear().text) == 3_000_000


def test_an_answer_of_the_largest_size_does_not_stop_the_others(site: LiveSimulator, watch: Watch) -> None:
    """Requests that come while 4 MB are taken apart and written out are answered, none with an error."""
    site.site.update(reply="word " * 800_000)
    with watch() as gateway:
        large = gateway.call(stream=True).opened()
        site.site.update(reply=None)
        heard = hear_all([gateway.call(stream=number % 2 == 0) for number in range(20)])
        assert {(one.status, one.complete) for one in heard} == {(200, True)}
        large.leave()
        assert gateway.outcomes_of(21) == {("completed", ""): 21}
