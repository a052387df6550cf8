"""Where the agents and frameworks are, and how their scripts are run."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run_for_json

_HERE = Path(__file__).parent
_PYTHON = _HERE.parents[1] / ".venv-agents" / "bin" / "python"
_NODE_MODULES = _HERE / "node" / "node_modules"
CODEX = _NODE_MODULES / ".bin" / "codex"
CLAUDE_CODE = _NODE_MODULES / ".bin" / "claude"

needs_node_agents = pytest.mark.skipif(
    shutil.which("node") is None or not (_NODE_MODULES / ".installed").exists(),
    reason="npm packages of tests/agents/node are missing: `./dev agents` installs them",
)
needs_python_agents = pytest.mark.skipif(
    not _PYTHON.exists(), reason="the environment .venv-agents is missing: `./dev agents` makes it"
)


def run_script(gateway: LiveGateway, script: str, dialect: str, scenario: str, fruit: str = "") -> Any:
    """What came of a scenario of a script in node/ or python/, in one of the gateway's dialects."""
    is_node = script.endswith(".mjs")
    folder = _HERE / ("node" if is_node else "python")
    return run_for_json(
        ["node" if is_node else _PYTHON, script, dialect, scenario],
        folder,
        {"BASE_URL": _base_url(gateway, script, dialect), "API_KEY": ALICE_KEY, "FRUIT": fruit},
    )


def _base_url(gateway: LiveGateway, script: str, dialect: str) -> str:
    # Anthropic's own SDK wants the address without /v1; Vercel's wants it with it.
    return gateway.base_url if dialect == "anthropic" and not script.endswith(".mjs") else gateway.openai_url
