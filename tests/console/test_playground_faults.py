"""The demo's playground: what its visitor may let the simulator do wrong, and that nobody else may."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from app.api.console.rendering import LANGUAGES, texts_of
from app.cli.demo import simulated_upstreams
from app.cli.demo_faults import SimulatedFaults
from simulator.behaviour import Behaviour
from simulator.live import LiveSimulator, running
from simulator.site import Site
from tests.conftest import RunLog
from tests.console.browser import tab
from tests.console.running import COOKIE, Console, Signed, console_of
from tests.live import WAIT_SECONDS

_API_MODEL = "kimi-k2-0905-preview"
_USUAL = Behaviour(char_limit=900)


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSimulator]:
    """The simulator of a demo."""
    with running(_USUAL) as site:
        yield site


@pytest.fixture(scope="module")
def demo(site: LiveSimulator, run_log: RunLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console as the demo has it."""
    folder, faults = tmp_path_factory.mktemp("demo"), SimulatedFaults(site.site)
    with console_of(
        site, run_log.stream, folder, faults=faults, **simulated_upstreams(site.api_url), max_retries=1
    ) as console:
        console.new_key("visitor")
        yield console


@pytest.fixture(scope="module")
def visitor(demo: Console) -> Iterator[Signed]:
    """Who looks at the demo."""
    with demo.signed_in("admin") as visitor:
        yield visitor


def _asked(console: Console, visitor: Signed, fault: str, model: str) -> dict[str, Any]:
    """The row of a message that is sent without a session, while something goes wrong."""
    [key] = re.findall(r'<option value="(k_[^"]+)"', visitor.client.get("/console/playground").text)[:1]
    fields = {"key": key, "model": model, "message": "Hello", "fault": fault}
    answer = visitor.client.post(
        "/console/playground/stream", data=fields, headers={"x-csrf-token": visitor.csrf, "accept-language": "en"}
    )
    row: dict[str, Any] = console.rows(lambda row: row["request_id"] == answer.headers["x-request-id"])[0]
    return row


@pytest.mark.parametrize(
    ("fault", "model", "error"),
    [
        ("", "kimi", None),
        ("stale_nonce", "kimi", None),
        ("challenge", "kimi", None),
        ("one_error", "kimi", None),
        ("one_error", _API_MODEL, None),
        ("errors", "kimi", "upstream_unavailable"),
        ("errors", _API_MODEL, "upstream_unavailable"),
        ("cut_off", "kimi", "upstream_unavailable"),
        ("cut_off", _API_MODEL, "upstream_unavailable"),
        ("empty", "kimi", "empty_reply"),
        ("empty", _API_MODEL, "empty_reply"),
    ],
)
def test_a_fault_happens_to_one_message(
    demo: Console, site: LiveSimulator, visitor: Signed, fault: str, model: str, error: str | None
) -> None:
    """The gateway gets over some of them, and says of the others what they are; then all is as before."""
    assert _asked(demo, visitor, fault, model)["error"] == error
    assert site.site.behaviour == _USUAL
    if fault == "stale_nonce":
        assert site.site.counters.refused_nonce


def test_all_faults_are_the_simulator_s_and_have_texts() -> None:
    """Each changes something for as long as it lasts, also where several last at once."""
    site = Site(_USUAL)
    faults = SimulatedFaults(site)
    for name in faults.names:
        nonces = site.issued_nonces
        with faults.during(name), faults.during("slow"):
            pass
        with faults.during(name):
            assert site.behaviour != _USUAL or site.issued_nonces != nonces
            with faults.during(name):
                pass
            assert site.behaviour != _USUAL or name == "stale_nonce"
        assert site.behaviour == _USUAL
        assert all(f"simulated_{name}" in texts_of(language) for language in LANGUAGES)


def test_nothing_goes_wrong_outside_the_demo(console: Console) -> None:
    """There is no choice on the page, and who sends one is answered as ever."""
    console.new_key("somebody")
    with console.signed_in("admin") as admin:
        assert 'name="fault"' not in admin.client.get("/console/playground").text
        assert _asked(console, admin, "errors", "kimi")["error"] is None


def test_a_fault_that_there_isn_t_is_refused(demo: Console, visitor: Signed) -> None:
    """Whoever makes one up learns so."""
    answer = visitor.post("/console/playground/stream", fault="../reset", message="Hello", model="kimi")
    assert answer.status_code == 400


def test_a_visitor_sees_what_becomes_of_it(browser: Browser, demo: Console, visitor: Signed) -> None:
    """In Chinese, by the page's own script, and on the page of the request; the next message is answered."""
    host = urlsplit(demo.address).hostname
    with tab(browser, demo.address, may_fault=True, locale="zh-CN") as opened:
        cookie = {"name": COOKIE, "value": visitor.login.cookie, "domain": host, "path": "/console"}
        opened.page.context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict
        opened.go("playground")
        page, state = opened.page, opened.page.locator("#result-1 [data-part=state]")
        page.get_by_label("模拟的上游出什么问题").select_option("每次都是错误 500")
        page.fill("[name=message]", "你好")
        page.click("form#playground > button:not([type])")
        expect(state).to_contain_text(texts_of("zh")["error_upstream_unavailable"], timeout=WAIT_SECONDS * 1000)
        assert opened.axe() == []
        page.select_option("[name=fault]", "")
        page.click("form#playground > button:not([type])")
        expect(state).to_contain_text("●", timeout=WAIT_SECONDS * 1000)
        row = demo.rows(lambda row: row["outcome"] == "failed" and row["dialect"] == "console")[0]
        opened.go(f"requests/{row['id']}")
        expect(page.locator("#steps")).to_contain_text("上游，到第一个字")
        assert opened.axe() == []
        page.set_viewport_size({"width": 360, "height": 740})
        assert opened.overflow() <= 0
