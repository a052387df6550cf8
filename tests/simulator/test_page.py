import httpx
import pytest

from simulator.behaviour import PAGE_STYLES
from simulator.live import LiveSimulator
from tests.simulator.client import fetch_nonce, form, read_settings, send


@pytest.mark.parametrize("style", [style for style in PAGE_STYLES if style != "foreign_ajax_url"])
def test_the_settings_can_be_read_in_every_style(live: LiveSimulator, client: httpx.Client, style: str) -> None:
    """Whatever the page looks like, it holds the endpoint on the host that was asked for, and a nonce that works."""
    live.site.update(page_style=style)
    page = client.get(live.page_url)
    settings = read_settings(page.text)
    assert settings["ajax_url"] == live.ajax_url
    assert page.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert client.post(live.ajax_url, data=form(settings["nonce"])).json()["success"] is True


def test_slashes_are_escaped_as_wordpress_does(live: LiveSimulator, client: httpx.Client) -> None:
    """The page needs a JSON decoder, as the genuine one does."""
    assert '{"ajax_url":"http:\\/\\/127.0.0.1:' in client.get(live.page_url).text


def test_the_nested_style_defeats_matching_braces(live: LiveSimulator, client: httpx.Client) -> None:
    """In the nested style a text holds `};` and a closing tag, and another nonce precedes the page's own."""
    live.site.update(page_style="nested")
    page = client.get(live.page_url).text
    settings = read_settings(page)
    assert page.index("};") < page.index(settings["nonce"])
    assert "</b>" in settings["strings"]["hint"]
    assert settings["rest"]["nonce"] != settings["nonce"]


def test_a_page_may_name_a_foreign_endpoint(live: LiveSimulator, client: httpx.Client) -> None:
    """One style sends its visitors to another host."""
    live.site.update(page_style="foreign_ajax_url")
    assert "evil.example" in read_settings(client.get(live.page_url).text)["ajax_url"]


def test_the_root_leads_to_the_page(live: LiveSimulator, client: httpx.Client) -> None:
    """The bare host redirects to the chat page."""
    answer = client.get(live.base_url)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/chat/")


def test_a_cached_page_is_stale_unless_asked_with_a_query(live: LiveSimulator, client: httpx.Client) -> None:
    """A page cache serves the expired nonce again; a query string goes past it."""
    old = fetch_nonce(client, live)
    new = live.site.rotate()
    live.site.update(stale_pages=1)
    assert fetch_nonce(client, live, "?fresh=1") == new
    assert fetch_nonce(client, live) == old
    assert fetch_nonce(client, live) == new
    assert client.post(live.ajax_url, data=form(old)).text == "-1"


@pytest.mark.parametrize(
    ("failure", "status", "mark"),
    [
        ("challenge", 403, "Just a moment..."),
        ("no_nonce", 200, "Kimi Chat"),
        ("broken_json", 200, '"nonce":;'),
        ("server_error", 500, "Internal Server Error"),
        ("maintenance", 503, "maintenance"),
        ("empty", 200, ""),
    ],
)
def test_page_failures(live: LiveSimulator, client: httpx.Client, failure: str, status: int, mark: str) -> None:
    """A failing page has the failure's status and text and no nonce, as often as asked, and then recovers."""
    live.site.update(page_failure=failure, page_failure_times=2)
    for _ in range(2):
        answer = client.get(live.page_url)
        assert (answer.status_code, mark in answer.text) == (status, True)
        with pytest.raises(ValueError, match=r"kimi_ajax|Expecting"):
            read_settings(answer.text)
    assert send(client, live).json()["success"] is True


def test_a_page_fetch_can_be_reset(live: LiveSimulator, client: httpx.Client) -> None:
    """The page's connection can break without an answer."""
    live.site.update(page_failure="reset", page_failure_times=1)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.get(live.page_url)
    assert client.get(live.page_url).status_code == 200


def test_a_page_fetch_can_hang(live: LiveSimulator, client: httpx.Client) -> None:
    """The page can stay silent until the visitor gives up."""
    live.site.update(page_failure="hang")
    with pytest.raises(httpx.TimeoutException):
        client.get(live.page_url, timeout=0.05)


def test_a_page_can_be_huge_or_slow(live: LiveSimulator, client: httpx.Client) -> None:
    """A page can be as large as asked, and a slow one is the ordinary page byte by byte."""
    live.site.update(page_failure="huge", huge_bytes=200_000)
    assert client.get(live.page_url).text.count("x") == 200_000
    live.site.update(page_failure="slow_drip", drip_s=0)
    assert fetch_nonce(client, live) in live.site.issued_nonces
