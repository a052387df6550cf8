"""The front page."""

import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from app import __version__
from simulator.live import LiveSimulator
from tests.api.pages.reading import Page, hash_of, policy_of
from tests.conftest import StartGateway
from tests.live import ALICE_KEY, LiveGateway

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
CHINESE = {**BROWSER, "Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}


@pytest.fixture
def browser(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """A client that sends what browsers send, and no key."""
    with httpx.Client(base_url=gateway.base_url, headers=BROWSER, trust_env=False) as http:
        yield http


def test_a_browser_gets_a_page(browser: httpx.Client, gateway: LiveGateway) -> None:
    """It says what this is, in which version, that it works, at which address, and where to read on."""
    response = browser.get("/").raise_for_status()
    page = Page(response.text)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert page.language == "en"
    for told in ("kimi-ai-2api", __version__, "Ready: requests are answered.", gateway.openai_url):
        assert told in page.text
    assert page.links == ["/docs", "/openapi.json", "/ready"]
    assert all(browser.get(link).status_code == 200 for link in page.links)


def test_its_curl_line_works(browser: httpx.Client) -> None:
    """Pasted into a shell, with a key in the place of the placeholder, it streams an answer."""
    text = Page(browser.get("/").text).text
    line = re.search(r"curl -N .*?}'", text, re.DOTALL)
    assert line is not None
    command = line[0].replace("YOUR_API_KEY", ALICE_KEY)
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("headers", [BROWSER, CHINESE])
def test_it_loads_nothing_and_runs_nothing(browser: httpx.Client, headers: dict[str, str]) -> None:
    """No script, nothing from elsewhere, and a policy that allows neither, but one style by its hash."""
    response = browser.get("/", headers=headers)
    page = Page(response.text)
    assert (page.scripts, page.inline) == ([], [])
    assert all(place.startswith("data:image/svg+xml,") for place in page.loads)
    policy = policy_of(response.headers["content-security-policy"])
    assert policy["default-src"] == ["'none'"]
    assert policy["style-src"] == [hash_of(style) for style in page.styles]
    assert set(policy) == {"default-src", "style-src", "img-src", "base-uri", "form-action", "frame-ancestors"}
    assert "http" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"


def test_it_speaks_chinese(browser: httpx.Client) -> None:
    """To browsers that would rather have Chinese; caches know by which headers it differs."""
    response = browser.get("/", headers=CHINESE)
    page = Page(response.text)
    assert page.language == "zh-CN"
    assert "就绪：可以处理请求。" in page.text
    assert response.headers["vary"] == browser.get("/", headers={"Accept": "*/*"}).headers["vary"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/plain, */*"])
def test_programs_get_json_as_ever(browser: httpx.Client, accept: str) -> None:
    """What curl and clients of the API ask for is no page."""
    assert browser.get("/", headers={"Accept": accept}).json() == {
        "name": "kimi-ai-2api",
        "docs": "/docs",
        "openai_base_url": "/v1",
    }


def test_a_host_that_is_none_is_not_repeated(browser: httpx.Client) -> None:
    """Neither markup nor a command for the shell gets into the page."""
    for host in ('"><script>alert(1)</script>', "h';id;'", "a b"):
        response = browser.get("/", headers={"Host": host})
        assert response.status_code in (200, 400)
        assert host not in response.text


def test_behind_a_proxy_the_addresses_are_the_proxy_s(browser: httpx.Client) -> None:
    """Scheme, host and prefix are those that the browser knows."""
    headers = {"Host": "llm.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/kimi"}
    page = Page(browser.get("/", headers=headers).text)
    assert "https://llm.example.org/kimi/v1" in page.text
    assert page.links == ["/kimi/docs", "/kimi/openapi.json", "/kimi/ready"]


@pytest.mark.parametrize(
    ("failure", "english", "chinese"),
    [
        (
            "challenge",
            "kimi-web: Cloudflare wants to see a browser there.",
            "kimi-web: Cloudflare 要求使用浏览器访问。",
        ),
        ("no_nonce", "kimi-web: its page is not what the gateway expects.", "kimi-web: 页面与网关的预期不符。"),
        ("server_error", "kimi-web: it is down, or can't be reached from here.", "kimi-web: 已停止服务"),
    ],
)
def test_it_says_in_plain_words_why_it_is_not_ready(
    site: LiveSimulator, start_gateway: StartGateway, failure: str, english: str, chinese: str
) -> None:
    """The upstream that can't be asked is named, with the reason, and no code of ours."""
    site.site.update(page_failure=failure)
    with start_gateway(max_retries=0) as gateway, gateway.client() as http:
        assert http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]}).is_error
        assert http.get("/ready").status_code == 503
        text = Page(http.get("/", headers=BROWSER).text).text
        assert "Not ready: no upstream can be asked at the moment." in text
        assert english in text
        assert chinese in Page(http.get("/", headers=CHINESE).text).text
