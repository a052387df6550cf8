"""Requests that nobody would think of: schemathesis makes them from a description, in a process of its own.

What has to be true of each response is said in modules that only that process loads: they put their checks into
schemathesis, where no two may have the same name. So the names that they share with tests are here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 600.0

# The test begins these two sessions before the run: one is read, the other deleted.
KEPT_SESSION = "kept"
DOOMED_SESSION = "doomed"
# And two responses, whose ids it puts into the environment under these names.
KEPT_RESPONSE = "FUZZ_KEPT_RESPONSE"
DOOMED_RESPONSE = "FUZZ_DOOMED_RESPONSE"
# Or a key: its id, and that of the key which is sent.
KEY = "FUZZ_KEY"
OWN_KEY = "FUZZ_OWN_KEY"
# And a person.
PERSON = "FUZZ_PERSON"


def fuzz(
    description: str, secret: str, folder: Path, *, checks: str, arguments: list[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Send made-up requests, and fail if one gets an answer that it must not get.

    Args:
        description: The address of the OpenAPI document.
        secret: The key that is sent.
        folder: For what it leaves behind.
        checks: The module that says what has to be true.
        arguments: Further words for schemathesis.
        environment: For that module.

    Returns:
        schemathesis's report.
    """
    report = folder / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", description, "--no-color"]
    command += ["--header", f"Authorization: Bearer {secret}"]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-deterministic"]
    command += ["--report", "json", "--report-json-path", str(report), *arguments]
    own = {"SCHEMATHESIS_HOOKS": checks, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    # It leaves files where it runs, and looks for a configuration there.
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert (summary["failures"], summary["errors"], summary["complete"]) == ([], [], True)
    return summary
