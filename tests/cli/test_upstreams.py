"""`main.py upstreams` and `main.py routes`, as operators use them."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.commands import main
from simulator.live import LiveSimulator
from tests.databases import ready_file
from tests.live import ALICE_KEY

Run = Callable[..., str]
_KEY = "sk-of-an-upstream-10c7aa"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns what it prints, together with what it complains of."""
    monkeypatch.chdir(tmp_path)  # where no .env is
    monkeypatch.setenv("DATABASE_URL", ready_file(tmp_path / "gateway.db"))
    monkeypatch.setenv("API_MASTER_KEY", ALICE_KEY)
    monkeypatch.setenv("SECRET_KEY", "s" * 32)

    def command(*words: str, types: str = "", fails: bool = False) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(types))
        status = main(words)
        told = capsys.readouterr()
        assert bool(status) is fails, told
        assert _KEY not in told.out + told.err
        return told.out + told.err

    return command


def _listed(run: Run) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(run("upstreams", "list", "--json"))}


def test_upstreams_are_tried_added_changed_and_removed(run: Run, site: LiveSimulator) -> None:
    """The key is typed in or piped, and never printed; those of the settings are listed and stay."""
    site.site.update(api_key=_KEY)
    fields = ("--base-url", site.api_url, "--key", "--models", "mine=qwen3,other", "--json", '{"timeout": 30}')
    assert "It answers. Its models: mine, other." in run("upstreams", "test", "gpu", *fields, types=f"{_KEY}\n")
    assert "upstream_key_rejected" in run("upstreams", "test", "gpu", *fields, types="sk-wrong\n", fails=True)
    assert list(_listed(run)) == ["kimi-web"]
    run("upstreams", "add", "gpu", *fields, types=f"{_KEY}\n")
    run("upstreams", "add", "cpu", "--base-url", "http://127.0.0.1:9", "--disabled", "--discover")
    assert "It answers" in run("upstreams", "test", "gpu")
    shown = _listed(run)
    assert (shown["gpu"]["secrets"], shown["cpu"]["enabled"]) == (["key"], False)
    assert shown["gpu"]["entry"] == {
        "name": "gpu",
        "base_url": site.api_url,
        "timeout": 30.0,
        "models": [{"id": "mine", "upstream_id": "qwen3"}, {"id": "other", "upstream_id": "other"}],
    }
    run("upstreams", "order", "cpu", "1")
    run("upstreams", "enable", "cpu")
    run("upstreams", "change", "cpu", "--no-discover", "--any-model", "--kind", "anthropic")
    assert _listed(run)["cpu"]["entry"]["kind"] == "anthropic"  # type: ignore[index]
    assert list(_listed(run)) == ["kimi-web", "cpu", "gpu"]
    assert re.search(r"cpu +database +enabled +http://127.0.0.1:9\S*\n", run("upstreams", "list"))
    run("upstreams", "add", "see", "--kind", "gemini", "--base-url", "http://127.0.0.1:9", "--models", "g")
    assert re.search(r"see +database +enabled +http://127.0.0.1:9/v1beta\n", run("upstreams", "list"))
    run("upstreams", "remove", "see")
    run("upstreams", "disable", "cpu")
    run("upstreams", "remove", "cpu")
    assert "Encrypted anew: what is secret of 1 upstream." in run("upstreams", "encrypt")
    assert list(_listed(run)) == ["kimi-web", "gpu"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "GPU", "--base-url", "http://127.0.0.1:9"), "name: up to 32 lower-case letters"),
        (("add", "gpu"), "base_url is missing"),
        (("add", "gpu", "--base-url", "http://127.0.0.1:9", "--key"), "no key was given"),
        (("add", "gpu", "--json", "{"), "--json: this is not JSON"),
        (("add", "gpu", "--json", "[]"), "--json: write an object"),
        (("add", "gpu", "--models", "=x"), "--models: write names of models"),
        (("change", "kimi-web", "--discover"), "stands in the settings"),
        (("change", "kimi-web"), "Nothing to change was given"),
        (("enable", "nobody"), "There is no upstream 'nobody'"),
        (("order", "nobody", "1"), "There is no upstream 'nobody'"),
        (("test", "kimi-web"), "`main.py doctor` tries it"),
    ],
)
def test_what_can_t_be_done_is_said_in_a_line(run: Run, words: tuple[str, ...], message: str) -> None:
    """And the command fails."""
    told = run("upstreams", *words, fails=True)
    assert message in told
    assert len(told.splitlines()) == 1


def test_routes_are_set_tried_and_removed(run: Run) -> None:
    """In order or with weights; who would answer is said in the order in which they are asked."""
    run("upstreams", "add", "gpu", "--base-url", "http://127.0.0.1:9", "--models", "qwen3")
    run("routes", "set", "kimi", "gpu/qwen3 > kimi-k2-instruct")
    run("routes", "set", "both", "qwen3*2|kimi*1")
    assert json.loads(run("routes", "list", "--json")) == [
        {"name": "kimi", "targets": "gpu/qwen3>kimi-k2-instruct", "from": "database"},
        {"name": "both", "targets": "qwen3*2|kimi*1", "from": "database"},
    ]
    tried = run("routes", "try", "kimi").splitlines()
    assert [line.partition(",")[0] for line in tried] == ["1. qwen3 at gpu", "2. kimi-k2-instruct at kimi-web"]
    assert "drawn anew" in run("routes", "try", "both")
    run("keys", "create", "ada", "--models", "gpt*")
    assert "does not exist" in run("routes", "try", "kimi", "--key", "ada", fails=True)
    assert "Did you mean 'kimi'" in run("routes", "try", "kimmi", fails=True)
    run("upstreams", "disable", "gpu")
    assert run("routes", "try", "kimi").startswith("1. kimi-k2-instruct at kimi-web")
    assert "above 0" in run("routes", "set", "both", "qwen3*0|kimi*1", fails=True)
    assert "no provider serves" in run("routes", "set", "both", "nowhere", fails=True)
    run("routes", "remove", "both")
    run("routes", "remove", "kimi")
    assert json.loads(run("routes", "list", "--json")) == [
        {"name": "kimi", "targets": "kimi-k2-instruct-0905", "from": "settings"}
    ]
