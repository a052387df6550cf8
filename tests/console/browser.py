"""Chromium, as Debian has it, and what it must never have to say."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, Playwright

from tests.live import WAIT_SECONDS

NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1200, "height": 800}
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def launched(playwright: Playwright) -> Browser:
    """A browser; close it."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    assert program, "Chromium is not installed: ./dev test installs it (Debian's package `chromium`)"
    # Root has no sandbox, and containers have little shared memory.
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])


@dataclass
class Tab:
    """A page in a context of its own, and all that went wrong in it."""

    page: Page
    home: str
    faults: list[str] = field(default_factory=list)

    def go(self, path: str) -> int:
        """Open a page of the console, and wait until it is there; its status."""
        response = self.page.goto(f"{self.home}/{path}", wait_until="load")
        return response.status if response else 0

    def axe(self) -> list[str]:
        """What axe finds on the page as it is."""
        violations: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [f"{self.page.url}: {one['id']}: {one['nodes'][0]['html'][:150]}" for one in violations]

    def overflow(self) -> int:
        """How far the page is wider than its window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wider

    def _watch(self) -> None:
        host = urlsplit(self.home).netloc
        page = self.page
        page.on("console", lambda message: self.faults.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", self._asked_by_a_dialog)
        page.on("request", lambda request: self._asked(request.url, host))

    def _asked_by_a_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str, host: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != host:
            self.faults.append(f"another host: {url}")


@contextmanager
def tab(browser: Browser, home: str, *, may_fault: bool = False, **options: Any) -> Iterator[Tab]:
    """A tab; when it is closed, no script has failed, no policy was broken, and no other host was asked.

    Args:
        home: The console's address.
        may_fault: For pages that answer with an error, which the browser notes.
        options: Those of a browser's context.
    """
    context = browser.new_context(**{"viewport": WIDE, "locale": "en-GB", "reduced_motion": "reduce", **options})
    context.set_default_timeout(WAIT_SECONDS * 1000 / 2)
    try:
        opened = Tab(context.new_page(), home)
        opened._watch()
        yield opened
        faults = [fault for fault in opened.faults if not (may_fault and "Failed to load resource" in fault)]
        assert faults == []
    finally:
        context.close()
