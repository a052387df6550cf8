"""The nginx template, as nginx itself sees it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.cli.nginx import render
from tests.nginx import TEMPLATE, policy

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")


def check(text: str, folder: Path) -> None:
    assert NGINX, "nginx is not installed (./dev test installs it)"
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = [NGINX, "-t", "-q", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("sticky", ["ip", "session"])
def test_nginx_accepts_the_configuration(tmp_path: Path, sticky: str) -> None:
    """Both kinds of stickiness are valid nginx."""
    check(render(TEMPLATE, policy(sticky), ["127.0.0.1:8101", "127.0.0.1:8102"], tmp_path), tmp_path)


def test_nginx_accepts_the_configuration_with_tls(tmp_path: Path) -> None:
    """A certificate switches https and its security header on."""
    certificate, key = make_certificate(tmp_path)
    text = render(TEMPLATE, policy("ip", certificate, key), ["127.0.0.1:8101"], tmp_path)
    check(text, tmp_path)
    assert "strict-transport-security" in text


def test_every_variable_of_the_template_is_filled_in(tmp_path: Path) -> None:
    """Nothing in capitals is left over, and an unknown variable is an error instead of an empty text."""
    text = render(TEMPLATE, policy("ip"), ["127.0.0.1:8101"], tmp_path)
    outside_comments = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"\$\{[A-Z_]+\}", outside_comments)
    with pytest.raises(KeyError):
        render("${NO_SUCH_THING}", policy("ip"), [], tmp_path)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", *options, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
