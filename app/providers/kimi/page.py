"""The chat page: what is read off it, and how it is fetched past Cloudflare.

cloudscraper is synchronous, so it runs in threads, never on the event loop.
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Mapping
from functools import partial
from http.cookiejar import Cookie
from itertools import islice
from urllib.parse import urljoin, urlsplit

import cloudscraper
import requests
import urllib3
from msgspec import Struct

from app.domain.errors import CloudflareChallenge, NonceMissing, SiteChanged, UpstreamError, UpstreamUnavailable
from app.providers.kimi.scraper import BoundedScraper, Page
from app.providers.kimi.wire import http_trouble, message_headers
from app.providers.threads import AbandonableThreads, TooManyStuckThreads

_SCRIPT_VARIABLE = re.compile(r"\bkimi_ajax['\"]?\]?\s*=\s*(?=\{)")
_NONCE = re.compile(r"[A-Za-z0-9_-]{4,128}")
# A page that repeats the variable more often is playing with us.
_MOST_VARIABLES = 20
_AJAX_PATH = "/wp-admin/admin-ajax.php"
# Fetches that still hang (in a name server, say) when another is begun.
_MOST_STUCK = 4


class Clearance(Struct, frozen=True):
    """Everything that a message needs to be let in by the site. Never printed: it holds the nonce and cookies.

    `headers` go with each message; `new_visitor` says that no cookie from before does. `fetched_at` is a time of the
    monotonic clock.
    """

    nonce: str
    ajax_url: str
    page_url: str
    headers: Mapping[str, str] = {}
    cookies: tuple[Cookie, ...] = ()
    new_visitor: bool = False
    fetched_at: float = 0.0

    def __repr__(self) -> str:
        return f"Clearance(page_url={self.page_url!r})"


def read_script(page: str) -> tuple[str, str | None]:
    """The nonce and the `ajax_url` (None if there is none) of the page's `kimi_ajax` variable.

    Raises:
        NonceMissing: The page has no such variable, or no nonce in it.
    """
    for match in islice(_SCRIPT_VARIABLE.finditer(page), _MOST_VARIABLES):
        try:
            # From the brace on it is JSON: decoding finds its end, whatever braces stand in its strings.
            values, _ = json.JSONDecoder(strict=False).raw_decode(page, match.end())
        except (ValueError, RecursionError):
            continue
        nonce, ajax_url = values.get("nonce"), values.get("ajax_url")
        if isinstance(nonce, str | int) and not isinstance(nonce, bool) and _NONCE.fullmatch(str(nonce)):
            return str(nonce), ajax_url if isinstance(ajax_url, str) else None
    raise NonceMissing("The Kimi site's chat page came without the nonce that messages need.")


class PageReader:
    """Fetches the chat page with cloudscraper.

    Args:
        page_url: Where the chat page is.
        ajax_url: Where messages go; None to ask the page (a URL on the page's own host) and else to guess it.
        timeout: Seconds that a fetch may take in all.
    """

    def __init__(self, *, page_url: str, ajax_url: str | None, timeout: float) -> None:
        self._page_url = page_url
        self._ajax_url = ajax_url
        self._timeout = timeout
        self._threads = AbandonableThreads("kimi-page", most_stuck=_MOST_STUCK)
        self._scraper: BoundedScraper | None = None

    async def fetch(self, *, new_visitor: bool = False) -> Clearance:
        """The page, past any cache on the way.

        Args:
            new_visitor: Come without the cookies of earlier visits.

        Raises:
            UpstreamError: It can't be had, or has no nonce.
        """
        try:
            async with asyncio.timeout(self._timeout):
                scraper = None if new_visitor else self._scraper
                if scraper is None or scraper.aborted:
                    # Costs tens of milliseconds (it reads a list of browsers), so it is kept for the next time.
                    scraper = self._scraper = await self._threads.run(BoundedScraper)
                return await self._threads.run(partial(self._fetch, scraper, new_visitor), abort=scraper.abort)
        except TimeoutError as error:
            raise UpstreamUnavailable(
                f"The Kimi site's chat page didn't come within {self._timeout:g} seconds."
            ) from error
        except TooManyStuckThreads as error:
            raise UpstreamUnavailable("Too many fetches of the Kimi site's chat page hang.") from error

    def _fetch(self, scraper: BoundedScraper, new_visitor: bool) -> Clearance:
        try:
            reply = scraper.fetch(self._page_url, self._timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise UpstreamUnavailable("The Kimi site's chat page can't be reached.") from error
        except cloudscraper.exceptions.CloudflareException as error:
            raise CloudflareChallenge("Cloudflare's check in front of the Kimi site can't be passed.") from error
        except ValueError as error:
            raise SiteChanged("The Kimi site's chat page leads to an address that is none.") from error
        finally:
            # cloudscraper switches tracebacks off for the whole process when it raises.
            if hasattr(sys, "tracebacklimit"):
                del sys.tracebacklimit
        return self._clearance(reply, scraper, new_visitor)

    def _clearance(self, reply: Page, scraper: BoundedScraper, new_visitor: bool) -> Clearance:
        trouble = http_trouble(reply.http)
        if trouble is not None:
            raise trouble if isinstance(trouble, UpstreamError) else SiteChanged(trouble.message)
        nonce, said = read_script(reply.http.body.decode("utf-8", "replace"))
        return Clearance(
            nonce=nonce,
            ajax_url=self._ajax_url or _trusted(said, reply.url),
            page_url=reply.url,
            headers=message_headers(page_url=reply.url, user_agent=str(scraper.headers["User-Agent"])),
            cookies=tuple(scraper.cookies),
            new_visitor=new_visitor,
            fetched_at=time.monotonic(),
        )


def _trusted(ajax_url: str | None, page_url: str) -> str:
    """The page's word for where messages go, as long as that is the page's own host; else WordPress's usual place."""
    with contextlib.suppress(ValueError):  # what can't be parsed is no address
        absolute = urljoin(page_url, ajax_url or "")
        if ajax_url and urlsplit(absolute)[:2] == urlsplit(page_url)[:2]:
            return absolute
    return urljoin(page_url, _AJAX_PATH)
