"""Requests that nobody would think of, made by schemathesis from the admin API's own description."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.clock import now
from app.storage.database import Database
from tests.api.admin.conftest import create
from tests.api.admin.fuzz_checks import KEY, OWN_KEY
from tests.live import LiveGateway
from tests.storage.calls import some_calls, write

ROOT = Path(__file__).parents[3]
MOST_SECONDS = 600.0
# The description can't tell every combination that is refused, nor that `/limits/gateway/try` may be a scope of that
# name for other methods (test_doors.py has those).
NOT_CHECKED = "negative_data_rejection,positive_data_acceptance,unsupported_method"


@pytest.mark.timeout(MOST_SECONDS + 60)
def test_no_request_makes_the_admin_api_stumble(keeper: LiveGateway, database: Database, tmp_path: Path) -> None:
    """No made-up request, right or wrong, gets a 5xx, an undescribed answer or an error without its envelope."""
    operator = create(database, "operator", scopes=["admin"])
    subject = create(database, "subject")
    write(database, some_calls(300, begin=now() - 3_600_000, milliseconds=3_500_000))
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{keeper.base_url}/admin/v1/openapi.json"]
    command += ["--header", f"Authorization: Bearer {operator.secret}", "--exclude-checks", NOT_CHECKED, "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--max-examples", "20"]
    # The feed never ends; it has tests of its own.
    command += ["--exclude-path", "/admin/v1/requests/feed", "--report", "json", "--report-json-path", str(report)]
    environment = {
        "SCHEMATHESIS_HOOKS": "tests.api.admin.fuzz_checks",
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        KEY: subject.key.id,
        OWN_KEY: operator.key.id,
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
    assert summary["operations"]["tested"] == 30
    assert summary["test_cases"]["generated"] > 500
