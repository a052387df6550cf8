"""A test that hangs fails by itself, and those after it still run."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

HANGING = """
import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvloop


@pytest.fixture
def endless() -> Iterator[None]:
    yield
    threading.Event().wait()


def test_thread() -> None:
    threading.Event().wait()


def test_teardown(endless: None) -> None:
    pass


def test_loop() -> None:
    with asyncio.Runner() as runner:
        runner.run(asyncio.Event().wait())


def test_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.Event().wait())


async def test_busy_task() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    spinning = asyncio.create_task(spin())
    await asyncio.Event().wait()
    spinning.cancel()


@pytest.mark.timeout(60)
def test_next() -> None:
    pass
"""


def test_a_hanging_test_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    """Waiting for a thread, in a teardown, in either kind of event loop and beside a busy task comes to an end."""
    module = tmp_path / "test_hanging.py"
    module.write_text(HANGING, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    done = subprocess.run(
        [*command, "-v", "--tb=line", "-W", "ignore", "-o", "timeout=0.5", str(module)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},  # `-v` twice says more
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    outcomes = set(re.findall(r"::(test_\w+) (\w+) +\[", done.stdout))
    hung = {("test_thread", "FAILED"), ("test_loop", "FAILED"), ("test_uvloop", "FAILED"), ("test_busy_task", "FAILED")}
    assert hung | {("test_teardown", "ERROR"), ("test_next", "PASSED")} <= outcomes, done.stdout + done.stderr
