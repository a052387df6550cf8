"""A minimal client of the simulated site, for the tests of the simulator."""

import json
import re
from typing import Any

import httpx

from simulator.live import LiveSimulator
from simulator.site import ACTION, MODELS

_SETTINGS = re.compile(r"\bkimi_ajax\s*=\s*(?=\{)")


def open_client(timeout_s: float = 10.0) -> httpx.Client:
    """A visitor with a cookie jar of its own."""
    return httpx.Client(timeout=timeout_s, trust_env=False)


def read_settings(page: str) -> dict[str, Any]:
    """The settings in the page's script. Raises ValueError if they can't be read."""
    found = _SETTINGS.search(page)
    if found is None:
        raise ValueError("no kimi_ajax in the page")
    settings, _ = json.JSONDecoder().raw_decode(page, found.end())
    return dict(settings)


def fetch_nonce(client: httpx.Client, live: LiveSimulator, query: str = "") -> str:
    return str(read_settings(client.get(live.page_url + query).text)["nonce"])


def form(nonce: str, message: str = "hello") -> dict[str, str]:
    return {"action": ACTION, "nonce": nonce, "message": message, "model": MODELS[0], "session_id": "session_1_a"}


def send(client: httpx.Client, live: LiveSimulator, message: str = "hello", **changes: str) -> httpx.Response:
    """Fetch the page, and send a message with its nonce; `changes` replace form fields."""
    return client.post(live.ajax_url, data=form(fetch_nonce(client, live), message) | changes)
