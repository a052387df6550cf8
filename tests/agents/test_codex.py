"""Codex CLI, as anybody would run it, with nothing set but the gateway as its provider."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.live import LiveSimulator
from tests.agents.programs import CODEX, needs_node_agents
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway
from tests.processes import run
from tests.script import Call, new_fruit, tool_user

pytestmark = needs_node_agents
# As in docs/agents.md; the first two lines keep it from calling home, and no command is asked for.
CONFIG = """
check_for_update_on_startup = false
analytics.enabled = false
model = "kimi"
model_provider = "gateway"
sandbox_mode = "danger-full-access"
{more}
[model_providers.gateway]
name = "The gateway"
base_url = "{base_url}"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
SLIM = """
model_instructions_file = "{instructions}"
web_search = "disabled"
skills.include_instructions = false
features.multi_agent = false
features.goals = false
"""
TASK = "Copy note.txt to copy.txt and tell me the fruit in it."
COPY = Call("exec_command", {"cmd": "cp note.txt copy.txt && cat copy.txt"})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that Codex works in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def codex(gateway: LiveGateway, work: Path, task: str, *, more: str = "", exit_status: int = 0) -> list[dict[str, Any]]:
    """The events that `codex exec` prints, with `more` in its configuration."""
    home = work.parent / "home"
    home.mkdir()
    (home / "config.toml").write_text(CONFIG.format(base_url=gateway.openai_url, more=more), encoding="utf-8")
    environment = {"HOME": str(home), "CODEX_HOME": str(home), "GATEWAY_KEY": ALICE_KEY}
    command: list[str | Path] = [CODEX, "exec", "--json", "--skip-git-repo-check", task]
    printed = run(command, work, environment, exit_status=exit_status)
    return [json.loads(line) for line in printed.splitlines()]


def items(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The completed items of one kind."""
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in done if item["type"] == kind]


def test_codex_completes_a_task(roomy_gateway: LiveGateway, site: LiveSimulator, work: Path) -> None:
    """Codex runs the command that the model calls for, and ends with an answer that knows its output."""
    fruit = new_fruit()
    (work / "note.txt").write_text(f"The note says: {fruit}.", encoding="utf-8")
    site.site.play(tool_user(COPY))
    events = codex(roomy_gateway, work, TASK)
    assert fruit in (work / "copy.txt").read_text(encoding="utf-8")
    assert [item["exit_code"] for item in items(events, "command_execution")] == [0]
    assert [item["text"] for item in items(events, "agent_message")] == [f"The fruit is {fruit}."]
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["input_tokens"] > 1000


def test_codex_in_a_small_room(start_gateway: StartGateway, site: LiveSimulator, work: Path) -> None:
    """With short instructions and few tools Codex does the same where messages are at most 6,000 characters long."""
    fruit = new_fruit()
    (work / "note.txt").write_text(f"The note says: {fruit}.", encoding="utf-8")
    (work.parent / "instructions.md").write_text("You are a coding agent.", encoding="utf-8")
    site.site.update(char_limit=6000)
    site.site.play(tool_user(COPY))
    with start_gateway(context_max_length=6000) as gateway:
        events = codex(gateway, work, TASK, more=SLIM.format(instructions=work.parent / "instructions.md"))
    assert [item["text"] for item in items(events, "agent_message")] == [f"The fruit is {fruit}."]


def test_codex_is_answered_where_its_tools_have_no_room(gateway: LiveGateway, work: Path) -> None:
    """With the site's real limit Codex can't work, but talk."""
    events = codex(gateway, work, "Say hello.")
    assert ["Say hello." in item["text"] for item in items(events, "agent_message")] == [True]


def test_codex_says_that_there_is_no_room(start_gateway: StartGateway, work: Path) -> None:
    """Where tools that don't fit are refused, Codex says so at once."""
    with start_gateway(tools_that_do_not_fit="refuse") as gateway:
        events = codex(gateway, work, "Say hello.", exit_status=1)
    assert events[-1]["type"] == "turn.failed"
    assert "room" in events[-1]["error"]["message"]


def test_codex_finds_the_tools_that_it_has_in_a_namespace(
    roomy_gateway: LiveGateway, site: LiveSimulator, work: Path
) -> None:
    """A call of a tool that Codex has put into a namespace reaches that tool: it complains of the made-up agent."""
    close = tool_user(Call("multi_agent_v1__close_agent", {"target": "nobody"}))
    site.site.play(lambda prompt: "It is gone." if "invalid agent id" in prompt else close(prompt))
    events = codex(roomy_gateway, work, "Close the agent.")
    assert [item["text"] for item in items(events, "agent_message")] == ["It is gone."]
