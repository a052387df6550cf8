"""`./dev audit`: what it makes of what pip-audit says."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.audit import NOT_CHECKED, audit

SOUND = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}]}
UNKNOWN = {"name": "odd", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def program(folder: Path, **answers: Any) -> list[str]:
    """A stand-in for pip-audit: what it prints, by service; one without an answer fails as without network."""
    file = folder / "pip_audit.py"
    file.write_text(
        "import json, sys, time\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "answer = answers.get(sys.argv[-1])\n"
        "if answer is None: sys.exit('ConnectionError')\n"
        "if answer == 'hang': time.sleep(600)\n"
        "print(json.dumps(answer))\n"
        "sys.exit(any(package.get('vulns') for package in answer.get('dependencies', ())))\n",
        encoding="utf-8",
    )
    return [sys.executable, str(file)]


@pytest.mark.parametrize(
    ("answers", "status", "told"),
    [
        ({"pypi": {"dependencies": [SOUND]}}, 0, "No known vulnerabilities."),
        ({"pypi": {"dependencies": [SOUND, BAD]}}, 1, "bad 2.0: PYSEC-1, fixed in 2.1"),
        ({"pypi": {"dependencies": [UNKNOWN, BAD]}}, 1, "bad 2.0: PYSEC-1"),
        ({"osv": {"dependencies": [SOUND]}}, 0, "pypi: can't be reached"),
        ({"pypi": {"dependencies": [UNKNOWN]}, "osv": {"dependencies": [SOUND]}}, 0, "1 are not known there"),
        ({"pypi": {"dependencies": [SOUND, UNKNOWN]}}, NOT_CHECKED, "Not checked"),
        ({"pypi": {"dependencies": []}}, NOT_CHECKED, "Not checked"),
        ({"pypi": {"message": "not found"}}, NOT_CHECKED, "Not checked"),
        ({}, NOT_CHECKED, "osv: can't be reached"),
    ],
)
def test_only_what_was_looked_up_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[str, Any], status: int, told: str
) -> None:
    """No database, or one that doesn't know a package, is not the same as no vulnerabilities."""
    assert audit(program(tmp_path, **answers), seconds=60) == status
    assert told in capsys.readouterr().out


def test_a_database_that_never_answers_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The audit ends, and says that nothing was checked."""
    assert audit(program(tmp_path, pypi="hang", osv="hang"), seconds=1) == NOT_CHECKED
    assert "Not checked" in capsys.readouterr().out
