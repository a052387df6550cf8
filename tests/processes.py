"""Programs that tests run: scripts with SDKs and agents to their end, and the gateway as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.live import WAIT_SECONDS

ROOT = Path(__file__).parents[1]


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


def environment(**settings: str) -> dict[str, str]:
    """A clean environment with these settings; the checkout's own .env has no say over what is given here."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "DATABASE_URL")}
    return {**kept, **settings}


@contextmanager
def process(*command: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A running command; killed at the end if it hasn't ended by itself."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def until_it_listens(running: subprocess.Popen[str]) -> None:
    """Wait until a gateway that was started has opened its port."""
    assert running.stderr is not None
    for line in running.stderr:
        if "Uvicorn running" in line:
            return
    raise AssertionError("the server never listened")
