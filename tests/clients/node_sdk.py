"""Where the SDKs for Node.js are."""

import shutil
from pathlib import Path

import pytest

NODE_FOLDER = Path(__file__).parent / "node"


def needs_node_modules(*packages: str) -> pytest.MarkDecorator:
    """Tests install nothing themselves: they are skipped without Node.js or one of these packages."""
    there = [(NODE_FOLDER / "node_modules" / package).is_dir() for package in packages]
    return pytest.mark.skipif(
        shutil.which("node") is None or not all(there),
        reason="npm packages of tests/clients/node are missing: `./dev node-modules` installs them",
    )
