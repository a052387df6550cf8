"""The supervisor never leaves nobody to answer, and doesn't wait for what can't come."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.cli import supervisor
from app.cli.nginx import NginxPolicy
from app.cli.supervisor import ClusterPolicy, Supervisor, _Process
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


async def test_an_end_that_comes_while_a_process_is_started_ends_that_one() -> None:
    """The cluster waits for all its processes: one that nobody has told would keep it for ever."""
    process = _Process("worker", ["sleep", "3600"], {"PATH": os.environ["PATH"]})
    keeper = asyncio.create_task(process.keep_running(lambda: True))
    await asyncio.sleep(0)  # it has begun, and has no process yet
    await process.end(signal.SIGTERM, 1)
    async with asyncio.timeout(WAIT_SECONDS):
        await keeper


async def test_a_worker_that_has_died_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no pause to wait for, and its next death is one again: nothing is left of the replacement."""
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 3600)
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE", 3600)
    process = _Process("worker", ["false"], {})
    with capture_logs() as lines:
        keeper = asyncio.create_task(process.keep_running(lambda: True))
        async with asyncio.timeout(WAIT_SECONDS):
            for deaths in (1, 2):
                while [line["event"] for line in lines].count("process_died") < deaths:  # noqa: ASYNC110 - a log line sets no event
                    await asyncio.sleep(0.01)
                await process.restart(1)
            await process.end(signal.SIGTERM, 1)
            await keeper


async def test_a_stop_waits_for_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the check of the new settings nor for what would come after it."""
    begun, left = asyncio.Event(), asyncio.Event()

    async def check(*_: object) -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            left.set()
        return ""

    monkeypatch.setattr(supervisor, "settings_fault", check)
    values: dict[str, Any] = dict.fromkeys([field.name for field in fields(NginxPolicy)], "1")
    nginx = NginxPolicy(**values)
    policy = ClusterPolicy(workers=1, first_port=1, grace=1, nginx=nginx, template="")
    cluster = Supervisor(policy, main=None, environment={}, policy_now=lambda: policy)
    stop, roll = asyncio.Event(), asyncio.Event()
    roll.set()
    serving = asyncio.create_task(cluster._serve(stop, roll))
    async with asyncio.timeout(WAIT_SECONDS):
        await begun.wait()
        stop.set()
        await serving
    assert left.is_set()


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
