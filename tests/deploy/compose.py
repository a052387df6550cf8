"""The deployment as docker-compose and docker read it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-compose-4f9a1c77d2e0"
PASSWORD = "5f0c9ad1b7e2446f"
DATABASE_PASSWORD = "0b6e12d94c7f4a85"
# What compose asks for.
SECRETS = {"API_MASTER_KEY": KEY, "REDIS_PASSWORD": PASSWORD, "POSTGRES_PASSWORD": DATABASE_PASSWORD}
BASE = ("docker-compose.yml",)
PRODUCTION = ("docker-compose.prod.yml",)
# What production may be written as, too.
OVERLAY = (*BASE, *PRODUCTION)
STACKS = pytest.mark.parametrize("files", [BASE, PRODUCTION], ids=["base", "production"])
SECONDS = 60

Config = dict[str, Any]
Compose = Callable[..., subprocess.CompletedProcess[str]]


def tool(name: str, package: str) -> str:
    """The path of a program that a package of requirements-dev.txt brings along."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return path


def config(compose: Compose, files: tuple[str, ...] = BASE, **settings: str) -> Config:
    """What docker-compose makes of the files, with everything filled in that has to be."""
    done = compose("config", "--format", "json", files=files, **SECRETS | settings)
    assert done.returncode == 0, done.stderr
    read: Config = json.loads(done.stdout)
    return read


def workers(read: Config) -> list[str]:
    return sorted(name for name in read["services"] if name.startswith("app"))


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(m?)s?", duration).groups()  # type: ignore[union-attr]  # None fails, as it should
    return int(number) * (60 if unit else 1)


def words(command: list[str]) -> str:
    """A command of `docker-compose config`, which doubles every dollar, as the container gets it."""
    return " ".join(command).replace("$$", "$")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments in one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def last_stage() -> dict[str, str]:
    found = instructions()
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])
