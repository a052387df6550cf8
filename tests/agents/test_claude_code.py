"""Claude Code, as anybody would run it, with nothing set but the gateway's address, key and model."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import CLAUDE_CODE, needs_node_agents
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_agents
TASK = "Copy note.txt to copy.txt and tell me the fruit in it."
COPY = Call("Bash", {"command": "cp note.txt copy.txt && cat copy.txt", "description": "Copy the note"})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that Claude Code works in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def claude(
    gateway: LiveGateway, work: Path, task: str, *more: str, key: str = "ANTHROPIC_API_KEY", exit_status: int = 0
) -> Any:
    """The result that `claude -p` prints. It may run commands; it calls nothing but the gateway."""
    home = work.parent / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": gateway.base_url,
        key: ALICE_KEY,
        "ANTHROPIC_MODEL": "kimi",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    command: list[str | Path] = [CLAUDE_CODE, "-p", task, "--output-format", "json", "--allowedTools", "Bash", *more]
    return json.loads(run(command, work, environment, exit_status=exit_status))


@pytest.mark.parametrize("key", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_claude_code_completes_a_task(roomy_gateway: LiveGateway, site: LiveSimulator, work: Path, key: str) -> None:
    """Claude Code runs the command that the model calls for, and ends with an answer that knows its output."""
    fruit = new_fruit()
    (work / "note.txt").write_text(f"The note says: {fruit}.", encoding="utf-8")
    site.site.play(tool_user(COPY))
    seen = claude(roomy_gateway, work, TASK, key=key)
    assert fruit in (work / "copy.txt").read_text(encoding="utf-8")
    assert (seen["result"], seen["is_error"], seen["num_turns"]) == (f"The fruit is {fruit}.", False, 2)
    assert seen["usage"]["input_tokens"] > 1000


def test_claude_code_in_a_small_room(start_gateway: StartGateway, site: LiveSimulator, work: Path) -> None:
    """With few tools Claude Code does the same where messages are at most 4,000 characters long."""
    fruit = new_fruit()
    (work / "note.txt").write_text(f"The note says: {fruit}.", encoding="utf-8")
    site.site.update(char_limit=4000)
    site.site.play(tool_user(COPY))
    with start_gateway(context_max_length=4000) as gateway:
        seen = claude(gateway, work, TASK, "--bare", "--tools", "Bash,Read,Edit,Write")
    assert seen["result"] == f"The fruit is {fruit}."


def test_claude_code_is_answered_where_its_tools_have_no_room(gateway: LiveGateway, work: Path) -> None:
    """With the site's real limit Claude Code can't work, but talk."""
    seen = claude(gateway, work, "Say hello.")
    assert (seen["is_error"], seen["num_turns"]) == (False, 1)
    assert seen["result"].startswith("This is the simulator")


def test_claude_code_says_that_there_is_no_room(start_gateway: StartGateway, work: Path) -> None:
    """Where tools that don't fit are refused, Claude Code says so at once."""
    with start_gateway(tools_that_do_not_fit="refuse") as gateway:
        seen = claude(gateway, work, "Say hello.", exit_status=1)
    assert seen["is_error"] is True
    assert "too long" in seen["result"]
