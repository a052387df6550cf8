"""Requests that nobody would think of: schemathesis makes them from the gateway's own description of itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.live import LiveSimulator
from tests.clients.fuzz_checks import DOOMED_RESPONSE, DOOMED_SESSION, KEPT_RESPONSE, KEPT_SESSION
from tests.live import ALICE_KEY, LiveGateway

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 600.0
# The gateway is lenient on purpose (a number may come as text), and its description can't tell every combination that
# it refuses.
NOT_CHECKED = "negative_data_rejection,positive_data_acceptance"


@pytest.mark.timeout(MOST_SECONDS + 60)
def test_no_request_makes_the_gateway_stumble(gateway: LiveGateway, site: LiveSimulator, tmp_path: Path) -> None:
    """No made-up request, right or wrong, gets a 5xx, an undescribed answer or an error without its envelope."""
    site.site.update(reply="Here you are.")
    with gateway.client() as http:
        for session in (KEPT_SESSION, DOOMED_SESSION):
            body = {"messages": [{"role": "user", "content": "Hello"}], "user": session}
            http.post("/v1/chat/completions", json=body).raise_for_status()
        responses = {
            name: http.post("/v1/responses", json={"input": "Hello"}).raise_for_status().json()["id"]
            for name in (KEPT_RESPONSE, DOOMED_RESPONSE)
        }
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.base_url}/openapi.json", "--no-color"]
    command += ["--header", f"Authorization: Bearer {ALICE_KEY}", "--exclude-checks", NOT_CHECKED]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--max-examples", "100"]
    command += ["--report", "json", "--report-json-path", str(report)]
    environment = {
        "SCHEMATHESIS_HOOKS": "tests.clients.fuzz_checks",
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        **responses,
    }
    # It leaves files where it runs, and looks for a configuration there.
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(report.read_text(encoding="utf-8"))
    assert (summary["failures"], summary["errors"], summary["complete"]) == ([], [], True)
    assert summary["operations"]["tested"] == summary["operations"]["total"] == 19
    assert summary["test_cases"]["generated"] > 500
    assert site.site.counters.accepted > 20
