"""The locked requirements: complete, with hashes, and of one mind."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME: list[str] = PROJECT["project"]["dependencies"]
TRACING: list[str] = PROJECT["project"]["optional-dependencies"]["tracing"]
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
NAMED = {
    "requirements.txt": RUNTIME,
    "requirements-tracing.txt": RUNTIME + TRACING,
    "requirements-dev.txt": RUNTIME + TRACING + GROUPS["dev"],
    "requirements-agents.txt": GROUPS["agents"],
    "requirements-audit.txt": GROUPS["audit"],
    "requirements-uv.txt": GROUPS["uv"],
}
FILES = pytest.mark.parametrize("file", NAMED)


def locked(file: str) -> dict[str, str]:
    """The names in a file, each with what else is said of it: version, marker and hashes."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {package: version + rest for package, version, rest in (line.partition("==") for line in lines)}


def name(requirement: str) -> str:
    """The package that a requirement in pyproject.toml is about."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def test_every_file_is_known() -> None:
    """No list of requirements is left out of these tests."""
    # Open WebUI's hundreds of packages are for `./dev apps` alone, and have no hashes.
    assert {path.name for path in ROOT.glob("requirements*")} - {"requirements-apps.txt"} == NAMED.keys()


@FILES
def test_a_file_locks_what_the_project_names(file: str) -> None:
    """`./dev lock` has been run since pyproject.toml changed."""
    assert {name(requirement) for requirement in NAMED[file]} <= locked(file).keys()


@FILES
def test_every_package_has_one_version_and_hashes(file: str) -> None:
    """Nothing is installed that was not there when the versions were locked."""
    for package, rest in locked(file).items():
        assert re.fullmatch(r"==[\w.]+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", rest), package


@FILES
def test_no_address_is_in_a_file(file: str) -> None:
    """Where packages come from is for each machine to say."""
    assert "//" not in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["requirements-tracing.txt", "requirements-dev.txt"])
def test_what_runs_is_what_is_tested(file: str) -> None:
    """Each package of requirements.txt stands in the larger sets as it stands there."""
    assert locked("requirements.txt").items() <= locked(file).items()
