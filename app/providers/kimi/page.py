"""The chat page: fetching it past Cloudflare, and reading the nonce from it.

cloudscraper is synchronous, so it runs in threads, never on the event loop.
"""

import asyncio
import contextlib
import importlib
import re
import time
from collections.abc import Mapping
from functools import partial
from http.cookiejar import Cookie
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from app.domain.errors import NonceMissing, SiteChanged, UpstreamError, UpstreamUnavailable
from app.providers.cloudflare import is_challenge_page
from app.providers.http import server_of
from app.providers.kimi.failure import challenge, http_failure
from app.providers.kimi.request import message_headers
from app.providers.kimi.script import script_values
from app.providers.threads import AbandonableThreads, TooManyStuckThreads

if TYPE_CHECKING:
    from app.providers.kimi.scraper import BoundedScraper, Page

_NONCE = re.compile(r"[A-Za-z0-9_-]{4,128}")
_AJAX_PATH = "/wp-admin/admin-ajax.php"
# Fetches that may still hang (in a DNS lookup, say) when another begins.
_MOST_STUCK = 4


class Clearance(Struct, frozen=True):
    """Everything that a message needs for the site to accept it.

    Attributes:
        nonce: Sent with each message.
        ajax_url: Where messages go.
        page_url: The page's own address, after redirects.
        headers: Sent with each message.
        cookies: As the page has set them.
        new_visitor: The page was fetched without earlier cookies, which must not be sent again.
        fetched_at: When, on the monotonic clock.
    """

    nonce: str
    ajax_url: str
    page_url: str
    headers: Mapping[str, str] = {}
    cookies: tuple[Cookie, ...] = ()
    new_visitor: bool = False
    fetched_at: float = 0.0

    def __repr__(self) -> str:
        # The nonce and the cookies must not get into a log.
        return f"Clearance(page_url={self.page_url!r})"


def read_script(page: str) -> tuple[str, str | None]:
    """Read the nonce and the `ajax_url`, if there is one, from the page's `kimi_ajax` variable.

    Raises:
        NonceMissing: The page has no such variable, or the variable has no nonce.
    """
    for values in script_values(page):
        nonce = values.get("nonce", "").strip()
        if _NONCE.fullmatch(nonce):
            return nonce, values.get("ajax_url")
    raise NonceMissing("The Kimi site's chat page doesn't contain the nonce that messages need.")


class PageReader:
    """Fetches the chat page with cloudscraper.

    Args:
        page_url: The address of the chat page.
        ajax_url: Where messages go. None takes what the page says, if that is on the page's own host, and else
            WordPress's default path.
        timeout: Seconds for a whole fetch.
    """

    def __init__(self, *, page_url: str, ajax_url: str | None, timeout: float) -> None:
        self._page_url = page_url
        self._server = server_of(page_url)
        self._ajax_url = ajax_url
        self._timeout = timeout
        self._threads = AbandonableThreads("kimi-page", most_stuck=_MOST_STUCK)
        self._scraper: BoundedScraper | None = None

    async def fetch(self, *, new_visitor: bool = False) -> Clearance:
        """Fetch the page, bypassing caches.

        Args:
            new_visitor: Send none of the cookies of earlier visits.

        Raises:
            UpstreamError: The page can't be fetched, or has no nonce.
        """
        try:
            async with asyncio.timeout(self._timeout):
                scraper = None if new_visitor else self._scraper
                if scraper is None or scraper.aborted:
                    # Takes tens of milliseconds (it reads a list of browsers), so it is kept for the next fetch.
                    scraper = self._scraper = await self._threads.run(_new_scraper)
                return await self._threads.run(partial(self._fetch, scraper, new_visitor), abort=scraper.abort)
        except TimeoutError as error:
            raise UpstreamUnavailable(
                f"The Kimi site's chat page did not arrive within {self._timeout:g} seconds.",
                reason="no answer in time",
                server=self._server,
            ) from error
        except TooManyStuckThreads as error:
            raise UpstreamUnavailable("Too many fetches of the Kimi site's chat page are stuck.") from error

    def _fetch(self, scraper: "BoundedScraper", new_visitor: bool) -> Clearance:
        return self._clearance(scraper.visit(self._page_url, self._timeout), scraper, new_visitor)

    def _clearance(self, reply: "Page", scraper: "BoundedScraper", new_visitor: bool) -> Clearance:
        failed = http_failure(reply.http)
        if failed is not None:
            raise failed if isinstance(failed, UpstreamError) else SiteChanged(failed.message)
        try:
            nonce, ajax_url = read_script(reply.http.body.decode("utf-8", "replace"))
        except NonceMissing:
            if is_challenge_page(reply.http.body):
                raise challenge() from None
            raise
        return Clearance(
            nonce=nonce,
            ajax_url=self._ajax_url or _trusted(ajax_url, reply.url),
            page_url=reply.url,
            headers=message_headers(page_url=reply.url, user_agent=str(scraper.headers["User-Agent"])),
            cookies=tuple(scraper.cookies),
            new_visitor=new_visitor,
            fetched_at=time.monotonic(),
        )


def _new_scraper() -> "BoundedScraper":
    # Importing it takes a twentieth of a second and a tenth of a worker's memory, which only who asks the site pays.
    scraper: BoundedScraper = importlib.import_module("app.providers.kimi.scraper").BoundedScraper()
    return scraper


def _trusted(ajax_url: str | None, page_url: str) -> str:
    """The page's `ajax_url` if it is on the page's own host, else WordPress's default path."""
    with contextlib.suppress(ValueError):  # not a URL
        absolute = urljoin(page_url, ajax_url or "")
        if ajax_url and urlsplit(absolute)[:2] == urlsplit(page_url)[:2]:
            return absolute
    return urljoin(page_url, _AJAX_PATH)
