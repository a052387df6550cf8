"""Programs that tests run to their end: scripts with SDKs, and agents."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.live import WAIT_SECONDS


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], *, exit_status: int = 0) -> str:
    """What a program prints. It runs in `folder` and sees nothing of the tests' own environment but the PATH."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=2 * WAIT_SECONDS,
    )
    assert done.returncode == exit_status, done.stdout + done.stderr
    return done.stdout


def run_for_json(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Any:
    """The same for a program that prints JSON."""
    return json.loads(run(command, folder, environment))
