"""Where a fetch of the chat page may lead, and how much of it is read."""

import asyncio
import gzip
import ssl
from pathlib import Path

import pytest

from app.domain.errors import GatewayError, SiteChanged, UpstreamUnavailable
from app.providers.kimi.page import PageReader
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from tests.providers.http.conftest import _no_proxy, certificate, tls  # noqa: F401 - fixtures
from tests.providers.http.server import OK, Talk, reply, server
from tests.providers.openai_compatible.upstream import KEY, provider_at, wanted

NONCE = "0a1b2c3d4e"
PAGE = reply(f'<script>var kimi_ajax = {{"nonce": "{NONCE}"}};</script>'.encode(), "Connection: close")


def _redirect(to: str, *headers: str, status: str = "302 Found") -> bytes:
    return reply(b"", f"Location: {to}", "Connection: close", *headers, status=status)


def _reader(url: str) -> PageReader:
    return PageReader(page_url=url, ajax_url=None, timeout=20)


async def _refusal(url: str) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await _reader(url).fetch()
    return raised.value


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_page_that_redirects_to_another_host_is_refused(status: str) -> None:
    """Nobody is asked there; the client is told what to set, and the operator to what."""
    async with server(PAGE) as other:
        there = f"http://localhost:{other.port}/chat/"
        redirect = _redirect(f"{there}?secret=1", "Set-Cookie: id=1", status=status)
        async with server(redirect) as site:
            error = await _refusal(f"http://127.0.0.1:{site.port}/chat/")
        assert other.connections == 0
    assert isinstance(error, SiteChanged)
    assert "CHAT_PAGE_URL" in error.message
    assert "localhost" not in error.message
    assert (error.reason, error.server) == ("page redirects to another host", there)


@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/chat/", "//localhost:{port}/", "//127.0.0.1:{port}/"])
async def test_a_detour_leads_to_no_other_server_either(to: str) -> None:
    """Each redirect is looked at, and the port counts as well."""
    async with server(PAGE) as other:
        async with server(_redirect("/new/"), _redirect(to.format(port=other.port))) as site:
            error = await _refusal(f"http://127.0.0.1:{site.port}/chat/")
            assert len(site.asked) == 2
        assert other.connections == 0
    assert error.code == "site_changed"


async def test_a_page_that_leaves_https_is_refused(
    tls: ssl.SSLContext,  # noqa: F811
    certificate: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the same host, too: its cookies and the nonce would go in the clear."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    async with server(PAGE) as plain, server(_redirect(plain.url), tls=tls) as site:
        error = await _refusal(site.url)
        assert plain.connections == 0
    assert (error.code, error.reason) == ("site_changed", "page redirects from https to http")
    assert "CHAT_PAGE_URL" in error.message


async def test_a_page_that_takes_to_https_is_followed(
    tls: ssl.SSLContext,  # noqa: F811
    certificate: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its host; messages then go by https as well."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    async with server(PAGE, tls=tls) as secure, server(_redirect(secure.url)) as site:
        clearance = await _reader(site.url).fetch()
    assert (clearance.nonce, clearance.page_url) == (NONCE, secure.url)
    assert clearance.ajax_url.startswith(f"https://127.0.0.1:{secure.port}/")


async def test_a_redirect_on_the_site_is_followed_with_its_cookies() -> None:
    """As browsers do it."""
    async with server(_redirect("/chat/new?a=b c", "Set-Cookie: id=1; Path=/"), PAGE) as site:
        clearance = await _reader(site.url).fetch()
        assert [asked.line.split()[1].partition("?")[0] for asked in site.asked] == ["/ask", "/chat/new"]
        assert site.asked[1].headers["cookie"] == "id=1"
    assert clearance.page_url == f"http://127.0.0.1:{site.port}/chat/new?a=b%20c"


async def test_interim_responses_come_before_the_page() -> None:
    """Early hints say what the page will need, and nothing that the gateway needs; without end they are no page."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    async with server(hints * 3 + PAGE) as site:
        assert (await _reader(site.url).fetch()).nonce == NONCE
    async with server(hints * 1000) as site:
        assert (await _refusal(site.url)).code == "upstream_unavailable"


async def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    """A server may close what it has kept just as the next request is sent on it."""
    kept = reply(b"", "Location: /chat/new", status="302 Found")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(kept)
        await reader.readuntil(b"\r\n\r\n")
        raise ConnectionResetError

    async with server(hang_up, PAGE) as site:
        assert (await _reader(site.url).fetch()).nonce == NONCE


@pytest.mark.parametrize(
    "page",
    [
        b"<html><head><title>Just a moment...</title></head><body>Checking.</body></html>",
        b'<html><body><form id="challenge-form" method="POST"></form></body></html>',
        b"<html><script>window._cf_chl_opt = {};</script></html>",
    ],
)
async def test_a_challenge_is_known_by_its_page_alone(page: bytes) -> None:
    """Whatever its status: the page that was asked for isn't there."""
    async with server(reply(page, "Connection: close")) as site:
        assert (await _refusal(site.url)).code == "cloudflare_challenge"


async def test_redirects_in_a_circle_end() -> None:
    """After a handful."""
    async with server(_redirect("/chat/")) as site:
        error = await _refusal(site.url)
        assert len(site.asked) <= 10
    assert (error.code, error.reason) == ("upstream_unavailable", "too many redirects")


@pytest.mark.parametrize("head", [OK, b"HTTP/1.1 302 Found\r\nLocation: /chat/\r\n"], ids=["page", "redirect"])
@pytest.mark.parametrize("packed", [False, True])
async def test_a_page_without_an_end_is_not_read_to_it(head: bytes, packed: bool) -> None:
    """Neither is the body of a redirect, nor one that is small before it is unpacked."""
    sent = [0]

    def talk_of(block: bytes) -> Talk:
        async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            coding = b"Content-Encoding: gzip\r\n" if packed else b""
            writer.write(head + coding + b"Content-Length: 1000000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(block)
                await writer.drain()
                sent[0] += len(block)
            raise ConnectionResetError

        return talk

    block = gzip.compress(b" " * 2**24) if packed else b" " * 2**16
    async with server(talk_of(block)) as site:
        error = await _refusal(site.url)
        await site.left.wait()
    assert isinstance(error, UpstreamUnavailable)
    assert sent[0] < 30 * 1024 * 1024


async def _ask(provider: OpenAICompatibleProvider, *, stream: bool) -> None:
    if stream:
        async for _ in provider.stream_completion(wanted()):
            pass
    else:
        await provider.create_completion(wanted())


@pytest.mark.parametrize("stream", [False, True])
async def test_an_api_upstream_s_redirect_is_not_followed(stream: bool) -> None:
    """The key goes nowhere else; the client is told so, and the operator where it would have gone."""
    async with server(reply(b"{}")) as other:
        there = f"http://localhost:{other.port}/v1"
        async with (
            server(_redirect(f"{there}?key={KEY}", status="307 Temporary Redirect")) as upstream,
            provider_at(f"http://127.0.0.1:{upstream.port}/v1") as provider,
        ):
            with pytest.raises(SiteChanged, match="redirects") as raised:
                await _ask(provider, stream=stream)
        assert other.connections == 0
    assert "localhost" not in raised.value.message
    assert (raised.value.reason, raised.value.server) == ("redirected", there)
