"""The supervisor never leaves nobody to answer, and doesn't wait for what can't come."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from app.cli.supervisor import _Process
from tests.cluster.running import ROOT
from tests.live import ALICE_KEY, WAIT_SECONDS
from tests.ports import free_ports


def _after(calls: int) -> Callable[[], bool]:
    """True so many times, then False."""
    answers = iter([True] * calls)
    return lambda: next(answers, False)


@pytest.mark.parametrize("others_run_for", [0, 5], ids=["nobody else runs", "the others die meanwhile"])
async def test_the_last_worker_is_not_kept_waiting(others_run_for: int) -> None:
    """However often it has died: when no other worker runs, its pause ends."""
    process = _Process("worker", ["true"], {})
    async with asyncio.timeout(WAIT_SECONDS):
        await process._pause(3600, _after(others_run_for))


async def test_a_pause_ends_with_the_cluster() -> None:
    """Nobody waits for a worker that isn't wanted any more."""
    process = _Process("worker", ["true"], {})
    pause = asyncio.create_task(process._pause(3600, lambda: True))
    await process.end(signal.SIGTERM, 1)
    async with asyncio.timeout(WAIT_SECONDS):
        await pause


def test_a_cluster_whose_workers_refuse_their_settings_ends_with_the_message() -> None:
    """Also where only the workers themselves can find the fault."""
    port = free_ports(4)
    ended = subprocess.run(
        [sys.executable, "main.py", "cluster"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "API_MASTER_KEY": ALICE_KEY,
            "MODEL_ROUTES": "x=nowhere",
            "NGINX_PORT": str(port),
            "CLUSTER_WORKERS": "2",
            "CLUSTER_FIRST_PORT": str(port + 1),
        },
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert "MODEL_ROUTES: The route 'x' leads to 'nowhere'" in ended.stderr
    assert "A worker refuses its settings" in ended.stderr + ended.stdout
