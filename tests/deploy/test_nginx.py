"""nginx as compose and the cluster configure it, looked through by gixy."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from app.cli.nginx import render
from tests.deploy.compose import (
    PRODUCTION,
    SECONDS,
    Compose,
    Config,
    config,
    tool,
)
from tests.nginx import TEMPLATE, policy

# What gixy finds in nginx.conf, and why it stays.
GIXY_EXCEPTIONS = {
    "host_spoofing": "$host has no port; there is one server only, and no page whose links could be poisoned",
}


def rendered_for_compose(read: Config) -> str:
    """nginx.conf as the nginx image fills it in."""
    nginx = read["services"]["nginx"]["environment"]
    values = {
        **nginx,
        "ADMIN_ACCESS": "allow 10.0.0.0/8; deny all;",
        "RESOLVER": "resolver 127.0.0.11 valid=5s;",
        "WORKERS": "server app1:8000 resolve;",
        "WORKERS_BY_ADDRESS": "server 192.0.2.1:8000;",
    }
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: str(values[match[1]]), TEMPLATE)


def rendered_for_cluster(certificate: Path | None) -> str:
    """nginx.conf as `main.py cluster` fills it in."""
    return render(
        TEMPLATE, policy("session", certificate, certificate), ["127.0.0.1:8101", "127.0.0.1:8102"], Path("run")
    )


def gixy(text: str, path: Path) -> set[str]:
    path.write_text(text, encoding="utf-8")
    command = [tool("gixy", "gixy-ng"), "--format", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return {found["plugin"] for found in json.loads(done.stdout)}


@pytest.mark.parametrize("certificate", [None, Path("certificate.pem")], ids=["http", "https"])
def test_gixy_is_content_with_the_clusters_nginx(tmp_path: Path, certificate: Path | None) -> None:
    """The configuration of `main.py cluster` has none of the usual faults but those that are explained above."""
    assert gixy(rendered_for_cluster(certificate), tmp_path / "nginx.conf") <= set(GIXY_EXCEPTIONS)


@pytest.mark.parametrize("certificate", ["", "./certificate.pem"], ids=["http", "https"])
def test_gixy_is_content_with_composes_nginx(compose: Compose, tmp_path: Path, certificate: str) -> None:
    """So has that of compose."""
    given = {"TLS_CERTIFICATE": certificate, "TLS_CERTIFICATE_KEY": certificate}
    text = rendered_for_compose(config(compose, PRODUCTION, **given))
    assert gixy(text, tmp_path / "rendered.conf") <= set(GIXY_EXCEPTIONS)
