"""`./dev audit`: looks the pinned versions up in databases of known vulnerabilities.

pip-audit by itself ends with 0 when a database knows none of the packages, as a mirror of PyPI without one does. Here
only what was really looked up counts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# All that runs in production.
_PINS = Path(__file__).parents[1] / "requirements-tracing.txt"
_SERVICES = ("pypi", "osv")
# For all services together.
_SECONDS = 28.0
_VULNERABLE = 1
NOT_CHECKED = 3


@dataclass(frozen=True, slots=True)
class Findings:
    """What a database says.

    Args:
        checked: How many packages it knows.
        unchecked: Names of those that it doesn't know.
        vulnerable: A line for each known vulnerability.
    """

    checked: int
    unchecked: Sequence[str]
    vulnerable: Sequence[str]


def main() -> int:
    """Check the pins, print what was found, and return the exit status."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5"]
    return audit([sys.executable, "-m", "pip_audit", "-r", str(_PINS), *options], _SECONDS)


def audit(program: Sequence[str], seconds: float) -> int:
    """Ask one service after the other until one has looked up everything.

    Args:
        program: pip-audit, with all options but format and service.
        seconds: How long all of it may take.

    Returns:
        0 if no vulnerabilities are known, 1 if some are, 3 if not everything could be looked up.
    """
    until = time.monotonic() + seconds
    for service in _SERVICES:
        findings = _ask([*program, "--format", "json", "--vulnerability-service", service], until - time.monotonic())
        if findings is None:
            print(f"{service}: can't be reached, or doesn't answer.")
            continue
        print(f"{service}: {findings.checked} packages were looked up; {len(findings.unchecked)} are not known there.")
        if findings.vulnerable:
            print("Known vulnerabilities:", *findings.vulnerable, sep="\n  ")
            return _VULNERABLE
        if findings.checked and not findings.unchecked:
            print("No known vulnerabilities.")
            return 0
    print("Not checked: no database of vulnerabilities could look up all packages. This says nothing about them.")
    return NOT_CHECKED


def _ask(command: Sequence[str], seconds: float) -> Findings | None:
    """What a service says; None if it says nothing, or not in time."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 0), check=False)  # noqa: S603 - it is our own
        return read(json.loads(ended.stdout))
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None


def read(report: Mapping[str, Any]) -> Findings:
    """Read pip-audit's JSON. Raises LookupError or TypeError if it is something else."""
    packages = report["dependencies"]
    return Findings(
        checked=sum("skip_reason" not in package for package in packages),
        unchecked=[package["name"] for package in packages if "skip_reason" in package],
        vulnerable=[_line(package, each) for package in packages for each in package.get("vulns", ())],
    )


def _line(package: Mapping[str, Any], vulnerability: Mapping[str, Any]) -> str:
    versions = ", ".join(vulnerability["fix_versions"])
    remedy = f"fixed in {versions}" if versions else "not fixed yet"
    return f"{package['name']} {package['version']}: {vulnerability['id']}, {remedy}"


if __name__ == "__main__":
    sys.exit(main())
