"""Requests that nobody would think of: schemathesis makes them from the gateway's own description of itself."""

from pathlib import Path
from typing import TextIO

import pytest

from simulator.live import LiveSimulator
from tests.fuzzing import DOOMED_RESPONSE, DOOMED_SESSION, KEPT_RESPONSE, KEPT_SESSION, MOST_SECONDS, fuzz
from tests.live import ALICE_KEY, LiveGateway
from tests.relaying import relaying

# The gateway is lenient on purpose (a number may come as text), and its description can't tell every combination that
# it refuses.
NOT_CHECKED = "negative_data_rejection,positive_data_acceptance"


@pytest.mark.timeout(MOST_SECONDS + 60)
def test_no_request_makes_the_gateway_stumble(site: LiveSimulator, log_stream: TextIO, tmp_path: Path) -> None:
    """No made-up request, right or wrong, gets a 5xx, an undescribed answer or an error without its envelope."""
    site.site.update(reply="Here you are.")
    with relaying(site, log_stream) as gateway:
        _fuzz(gateway, site, tmp_path)


def _fuzz(gateway: LiveGateway, site: LiveSimulator, folder: Path) -> None:
    with gateway.client() as http:
        for session in (KEPT_SESSION, DOOMED_SESSION):
            body = {"messages": [{"role": "user", "content": "Hello"}], "user": session}
            http.post("/v1/chat/completions", json=body).raise_for_status()
        responses = {
            name: http.post("/v1/responses", json={"input": "Hello"}).raise_for_status().json()["id"]
            for name in (KEPT_RESPONSE, DOOMED_RESPONSE)
        }
    summary = fuzz(
        f"{gateway.base_url}/openapi.json",
        ALICE_KEY,
        folder,
        checks="tests.clients.fuzz_checks",
        arguments=["--exclude-checks", NOT_CHECKED, "--max-examples", "30"],
        environment=responses,
    )
    assert summary["operations"]["tested"] == summary["operations"]["total"] == 33
    assert summary["test_cases"]["generated"] > 500
    assert site.site.counters.accepted > 20
