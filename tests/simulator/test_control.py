from dataclasses import asdict

import httpx

from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator
from tests.simulator.client import fetch_nonce, form, send


def test_the_state_can_be_read_and_changed(live: LiveSimulator, client: httpx.Client) -> None:
    """Knobs patched over HTTP are those of the site, and are shown with the counters."""
    answer = client.patch(f"{live.base_url}/_simulator", json={"failure": "html", "failure_times": 3})
    assert answer.status_code == 200
    assert live.site.behaviour == Behaviour(failure="html", failure_times=3)
    send(client, live)
    state = client.get(f"{live.base_url}/_simulator").json()
    assert state["behaviour"]["failure_times"] == 2
    assert state["counters"] == asdict(live.site.counters)


def test_a_bad_knob_is_refused(live: LiveSimulator, client: httpx.Client) -> None:
    """A wrong knob, and a body that is no JSON object, get 400 with the reason and change nothing."""
    url = f"{live.base_url}/_simulator"
    wrong = client.patch(url, json={"latency_s": 1, "nonsense": 1})
    assert (wrong.status_code, wrong.json()) == (400, {"error": "unknown knob: nonsense"})
    assert client.patch(url, json=[1]).status_code == 400
    assert client.patch(url, content=b"{").status_code == 400
    assert live.site.behaviour == Behaviour()


def test_rotating_makes_the_nonces_stale(live: LiveSimulator, client: httpx.Client) -> None:
    """After a rotation the old nonce is refused, and the page has a new one."""
    nonce = fetch_nonce(client, live)
    assert client.post(f"{live.base_url}/_simulator/rotate").status_code == 200
    assert client.post(live.ajax_url, data=form(nonce)).text == "-1"
    assert send(client, live).json()["success"] is True
    assert nonce in live.site.issued_nonces


def test_resetting_goes_back_to_the_defaults(live: LiveSimulator, client: httpx.Client) -> None:
    """A reset restores the knobs and zeroes the counters."""
    live.site.update(failure="html")
    send(client, live)
    client.post(f"{live.base_url}/_simulator/reset")
    assert live.site.behaviour == Behaviour()
    assert live.site.counters == type(live.site.counters)()
    assert live.site.messages == ()


def test_the_messages_are_shown_without_their_nonces(live: LiveSimulator, client: httpx.Client) -> None:
    """The log says what was sent and what came of it, and keeps the nonce to itself."""
    send(client, live, "hello 你好")
    answer = client.get(f"{live.base_url}/_simulator/messages")
    assert answer.json()["messages"] == [asdict(live.site.messages[0]) | {"cookies": ["kimi_visitor"]}]
    assert answer.json()["messages"][0]["message"] == "hello 你好"
    assert not any(nonce in answer.text for nonce in live.site.issued_nonces)
