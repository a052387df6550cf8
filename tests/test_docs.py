"""The documentation: the reference pages that are generated from the code, and the links between all pages."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from app.domain.limits import read_limits, texts_of
from docs import generate
from simulator.live import LiveSimulator

API = generate.ROOT / "docs/api.md"
CLIENTS = [generate.ROOT / "docs" / name for name in ("clients.md", "clients.zh-CN.md")]
LIMITS = [generate.ROOT / "docs" / name for name in ("limits.md", "limits.zh-CN.md")]
CODE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md") for page in generate.ROOT.glob(pattern))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(generate.ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links within the project name files that exist, and headings that these files have."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not _exists(page, target)] == []


@pytest.mark.parametrize("pages", [CLIENTS, LIMITS], ids=["clients", "limits"])
def test_both_languages_say_the_same(pages: list[Path]) -> None:
    """The same configurations, sections, tables and settings, in the same order."""
    english, chinese = (page.read_text(encoding="utf-8") for page in pages)
    assert CODE.findall(chinese) == CODE.findall(english)
    for of_both in (r"^(#+) ", r"^(\|)", r"`([A-Z]+_[A-Z_]+)[`=]", r"(\d+\.\d+(?:\.\d+)?)"):
        assert re.findall(of_both, chinese, re.MULTILINE) == re.findall(of_both, english, re.MULTILINE)


@pytest.mark.parametrize("page", LIMITS, ids=lambda page: page.name)
def test_limits_in_the_page_about_them_can_be_read(page: Path) -> None:
    """Those of its first table, which shows how they are written, and those in its commands."""
    table = page.read_text(encoding="utf-8").partition("|---|---|\n")[2].partition("\n\n")[0]
    examples = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE) + re.findall(
        r"`(\d[^`]* (?:per|requests?/)[^`]+)`", table
    )
    assert len(examples) >= 8
    for text in [*examples, *re.findall(r"limits set \S+ '(\d[^']+)'", page.read_text(encoding="utf-8"))]:
        assert texts_of(read_limits(text)) == text or "per" in text or "/s" in text


def test_configurations_of_clients_can_be_read() -> None:
    """What is there to copy is valid in its language."""
    readers: dict[str, Callable[[str], object]] = {"json": json.loads, "yaml": yaml.safe_load, "python": ast.parse}
    found = CODE.findall(CLIENTS[0].read_text(encoding="utf-8"))
    assert set(readers) <= {kind for kind, _ in found}
    for kind, code in found:
        if kind in readers:
            assert readers[kind](code)


def _exists(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.is_relative_to(generate.ROOT) and file.exists() and (not anchor or anchor in _anchors(file))


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings]
    seen: Counter[str] = Counter()
    anchors = set()
    for name in names:
        anchors.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return anchors


def _prose(page: Path) -> str:
    """A page without its blocks of code, in which `#` begins a comment."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
