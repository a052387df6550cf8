"""The reference pages that are generated from the code."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from docs import generate
from simulator.live import LiveSimulator

API = generate.ROOT / "docs/api.md"
# Set by uvicorn and by the web framework on any response.
COMMON = {"content-length", "content-type", "date", "server", "transfer-encoding"}


def test_every_page_is_up_to_date() -> None:
    """The command that the lint step runs finds nothing to change."""
    command = [sys.executable, "-m", "docs.generate", "--check"]
    ended = subprocess.run(command, cwd=generate.ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_stale_page_is_named_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check reports a page that does not say what the code does and changes nothing; without it, it is written."""
    page = tmp_path / "page.md"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "pages", lambda: {page: "new"})
    page.write_text("old", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["docs.generate", "--check"])
    assert generate.main() == 1
    assert (page.read_text(), "page.md is stale" in capsys.readouterr().err) == ("old", True)
    monkeypatch.setattr(sys, "argv", ["docs.generate"])
    assert generate.main() == 0
    assert page.read_text() == "new"


def test_what_is_written_by_hand_stays() -> None:
    """Only what stands between the markers is made anew, however often."""
    page = "# Title\n<!-- generated: one -->\nold\n<!-- end -->\nprose\n<!-- generated: two -->\n<!-- end -->\n"
    filled = generate.filled(page, {"one": "1", "two": "2"})
    assert filled == (
        "# Title\n<!-- generated: one -->\n\n1\n\n<!-- end -->\nprose\n<!-- generated: two -->\n\n2\n\n<!-- end -->\n"
    )
    assert generate.filled(filled, {"one": "1", "two": "2"}) == filled


def test_every_response_header_is_explained(client: httpx.Client, site: LiveSimulator) -> None:
    """Whatever headers an answer or an error has, the page about the API says what they mean."""
    hello = {"messages": [{"role": "user", "content": "Hello"}], "user": "ada", "temperature": 0.5}
    responses = [
        client.post("/v1/chat/completions", json=hello),
        client.get("/v1/chat/completions"),
        client.post("/v1/messages", json={}),
        client.get("/v1/models", headers={"Authorization": "Bearer wrong"}),
    ]
    site.site.update(failure="html")
    responses.append(client.post("/v1/chat/completions", json={**hello, "user": "bob"}))
    seen = {name for response in responses for name in response.headers}
    section = API.read_text(encoding="utf-8").partition("## Response headers")[2].partition("## Errors")[0].lower()
    assert {name for name in seen - COMMON if f"`{name}`" not in section} == set()
    assert {"x-session-id", "x-ignored-params", "allow", "x-should-retry", "www-authenticate"} <= seen
