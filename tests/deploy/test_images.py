"""The images that the deployment is made of, and how they are pinned."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.deploy.compose import OVERLAY, ROOT, SECONDS

PINS = ROOT / "deploy" / "images.env"
DIGEST = "sha256:" + "a1" * 32


def pins(file: Path = PINS) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.+)$", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_image_is_pinned_by_tag_and_digest() -> None:
    """Compose names a version of each image, and deploy/images.env the digest of that very version."""
    written = "".join((ROOT / name).read_text(encoding="utf-8") for name in OVERLAY)
    named = dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", written))
    assert {name: image.partition("@")[0] for name, image in pins().items()} == named
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*", image) for image in named.values())
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", image.partition("@")[2]) for image in pins().values())
    others = set(re.findall(r"^ +image: (?!\$)(.+)$", written, re.MULTILINE))
    assert others == {"kimi-ai-2api:local"}


def test_the_image_is_built_on_the_version_that_compose_names() -> None:
    """With or without compose."""
    base = pins()["PYTHON_IMAGE"].partition("@")[0]
    assert f"ARG PYTHON_IMAGE={base}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def dev_images(folder: Path, registry: str) -> subprocess.CompletedProcess[str]:
    """Run `./dev images` in a copy, where `docker` is a program that does as the registry says."""
    (folder / "deploy").mkdir(exist_ok=True)
    shutil.copy(PINS, folder / "deploy")
    shutil.copy(ROOT / "dev", folder)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "docker").write_text(f"#!/bin/sh\n{registry}\n", encoding="utf-8")
    (folder / "bin" / "docker").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(folder / "dev"), "images"],
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_images_are_pinned_anew(tmp_path: Path) -> None:
    """`./dev images` takes each tag's digest from the registry, and changes nothing else."""
    done = dev_images(tmp_path, f"echo {DIGEST}")
    assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "deploy" / "images.env"
    assert pins(file) == {name: f"{image.partition('@')[0]}@{DIGEST}" for name, image in pins().items()}
    old, new = (re.sub(r"@sha256:\w+", "", path.read_text(encoding="utf-8")) for path in (PINS, file))
    assert new == old


def test_without_a_registry_the_pins_stay(tmp_path: Path) -> None:
    """What could not be looked up is said, and nothing is half written."""
    for registry in ("exit 1", "echo", 'case "$*" in *redis*) exit 1;; esac; echo ' + DIGEST):
        done = dev_images(tmp_path, registry)
        assert done.returncode == 1
        assert "deploy/images.env stays as it is" in done.stderr
        assert (tmp_path / "deploy" / "images.env").read_bytes() == PINS.read_bytes()
