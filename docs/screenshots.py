"""Makes the pictures of the console in docs/images: `python -m docs.screenshots`. It needs Chromium.

With `--every FOLDER` it takes every page instead, in both languages, wide and light as well as narrow and dark, for
whoever has changed one and wants to look at them all.
"""

import argparse
import io
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

from app.domain.granting import Scope
from app.keys.administration import NewSecret, pause_key, revoke_key
from app.storage.audit import Actor
from app.storage.clock import now
from app.storage.limits import set_limits
from app.storage.prices import Price, change_prices
from app.storage.recordings import has_texts
from app.storage.rows import RequestRow
from simulator.behaviour import Behaviour
from simulator.live import running
from tests.console.browser import NARROW, Tab, launched, tab
from tests.console.running import COOKIE, Console, Signed, console_of
from tests.console.running import PAGES as PLAIN_PAGES
from tests.live import until
from tests.storage.calls import call, write

ROOT = Path(__file__).parent
WINDOW = {"width": 1080, "height": 680}
LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
# The picture's name, the language, the page.
PICTURES = (
    ("console-overview", "en", ""),
    ("console-overview.zh-CN", "zh", ""),
    ("console-requests", "en", "requests?span=24h"),
    ("console-request", "en", "requests/{call}"),
    ("console-key", "en", "keys/{key}"),
)
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WINDOW},
    "dark": {"viewport": WINDOW, "color_scheme": "dark"},
    "phone": {"viewport": NARROW},
}
PAGES = (
    *PLAIN_PAGES,
    *("requests/{call}", "requests/{recorded}", "requests?key=nobody", "keys/{key}", "keys/{revoked}", "nowhere"),
    *("limits/project:lab", "sessions?key={key}", "upstreams/gpu", "upstreams?model=fast"),
)
# Pages that a form leads to: the page, the form's button, and what is typed before.
ANSWERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("keys/new", "main form.card > button", {"name": "one-more-{look}"}),
    ("keys/{key}", "button[value=try]", {"limits": "2 requests/minute, 100k tokens/day"}),
    ("requests/{recorded}", "form[action$='/texts'] button", {}),
    ("requests/{recorded}", "form[action$='/playground'] button", {}),
    ("people", "form[action$='/link'] button", {}),
    ("playground", "#playground > button", {"message": "Hello! Who are you?", "model2": "qwen3"}),
    ("recordings", "button[value=start]", {}),
    ("upstreams", "#routes button[value=set]", {"route": "nowhere", "targets": "nobody/nothing"}),
)
_LARGEST = 150_000
_HOURS = 48


def main() -> int:
    """Make them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description="Make pictures of the console.")
    parser.add_argument("--every", metavar="FOLDER", type=Path, help="take every page, and put the pictures there")
    folder: Path | None = parser.parse_args().every
    with (
        tempfile.TemporaryDirectory() as place,
        running(Behaviour()) as site,
        console_of(site, io.StringIO(), Path(place)) as console,
        sync_playwright() as playwright,
    ):
        browser = launched(playwright)
        keys, names = _filled(console)
        with console.signed_in("admin", "ada") as ada:
            if folder is None:
                _make_pictures(browser, console, ada, names)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                names["recorded"] = _recorded(console, keys[0])
                _take_every_page(browser, console, ada, names, folder)
        browser.close()
    return 0


def _make_pictures(browser: Browser, console: Console, ada: Signed, names: dict[str, str]) -> None:
    for name, language, page in PICTURES:
        with _opened(browser, console, ada, language, viewport=WINDOW) as opened:
            opened.go(page.format(**names))
            picture = opened.page.screenshot()
        if len(picture) > _LARGEST:
            sys.exit(f"{name} has {len(picture)} bytes; pictures in the repository have at most {_LARGEST}.")
        (ROOT / "images" / f"{name}.png").write_bytes(picture)


def _take_every_page(browser: Browser, console: Console, ada: Signed, names: dict[str, str], folder: Path) -> None:
    for language, locale in LANGUAGES.items():
        for look, options in LOOKS.items():
            with _opened(browser, console, ada, language, **options) as opened:
                for page in PAGES:
                    opened.go(page.format(**names))
                    _take(opened, folder / f"{language}-{look}-{_file(page)}.png")
                for number, (page, button, fields) in enumerate(ANSWERS):
                    _send(opened, page.format(**names), button, fields, f"{language}-{look}")
                    _take(opened, folder / f"{language}-{look}-{_file(page)}-answer-{number}.png")
            with tab(browser, console.address, locale=locale, **options) as stranger:
                stranger.go("sign-in")
                stranger.page.screenshot(path=folder / f"{language}-{look}-sign-in.png", full_page=True)


def _file(page: str) -> str:
    return re.sub(r"[{}]", "", re.sub(r"[/?:=]", "-", page)) or "overview"


def _take(opened: Tab, picture: Path) -> None:
    opened.page.screenshot(path=picture, full_page=True)
    if wider := opened.overflow():
        print(f"{picture.name}: {wider} pixels wider than the window")


def _send(opened: Tab, page: str, button: str, fields: dict[str, str], look: str) -> None:
    opened.go(page)
    for name, value in fields.items():
        field = opened.page.locator(f"main [name={name}]:not([type=hidden])").first
        text = value.format(look=look)
        if field.evaluate("field => field.localName") == "select":
            field.select_option(text)
        else:
            field.fill(text)
    opened.page.locator(button).first.click()
    opened.page.wait_for_load_state("networkidle")


@contextmanager
def _opened(browser: Browser, console: Console, ada: Signed, language: str, **options: Any) -> Iterator[Tab]:
    """A tab of somebody who may do everything."""
    with tab(browser, console.address, may_fault=True, locale=LANGUAGES[language], **options) as opened:
        host = urlsplit(console.address).hostname or ""
        cookie = {"name": COOKIE, "value": ada.login.cookie, "domain": host, "path": "/console"}
        opened.page.context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict
        yield opened


def _filled(console: Console) -> tuple[list[NewSecret], dict[str, str]]:
    """Two days of a small team's calls; its keys, and the names of calls and keys worth looking at."""
    keys = [console.new_key(name, project=project) for project, name in _KEYS]
    for new, limits in zip(keys, ("60 requests/minute, 1M tokens/day", "5 at once", "$10/month"), strict=False):
        console.done(lambda connection, new=new, limits=limits: _limit(console, connection, new, limits))
    console.done(lambda connection: pause_key(console.database, connection, keys[3].key))
    write(console.database, _calls(keys))
    _set_up(console)
    revoked = console.new_key("leaked", project="shop")
    console.done(lambda connection: revoke_key(console.database, connection, revoked.key))
    console.chat(keys[0].secret)
    failed = console.rows(lambda row: row["passed_over"] is not None)[0]
    ids = {"key": keys[0].key.id, "revoked": revoked.key.id}
    return keys, {"call": str(failed["id"]), **ids}


def _recorded(console: Console, new: NewSecret) -> str:
    """A call of a key that is recorded, which every page says."""
    console.record(new)
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which is the longest river?"}]
    console.chat(new.secret, messages=told, user="ada", temperature=0.2)
    recorded = console.rows(lambda row: row["end_user"] == "ada")[0]
    with console.database.transaction() as connection:
        until(lambda: has_texts(connection, recorded))
    return str(recorded["id"])


def _set_up(console: Console) -> None:
    """What is more to see: people, upstreams and routes, limits, prices."""
    with console.signed_in("admin") as admin:
        for name, role in (("grace", "viewer"), ("linus", "admin")):
            admin.post("/console/people", name=name, role=role)
        more = '{"timeout": 120, "breaker": {"failure_rate": 0.5}}'
        gpu = {"base_url": "http://127.0.0.1:9/v1", "models": "qwen3, mine=llama-4", "more": more}
        admin.post("/console/upstreams", name="gpu", do="add", **gpu)
        admin.post("/console/routes", route="fast", targets="gpu/qwen3*3 | kimi*1", do="set")
        for scope, limits in (("gateway", "600 requests/minute"), ("project:lab", "20M tokens/day, $100/month")):
            admin.post(f"/console/limits/{scope}", limits=limits, do="save")
    prices = [Price("kimi", now() - 86_400_000, 600, 2_500, 150)]
    with console.database.transaction() as connection:
        change_prices(console.database, connection, Actor("cli:ada", "cli"), prices)


_KEYS = (("lab", "ada-laptop"), ("lab", "ci"), ("shop", "assistant"), ("shop", "trial"))


def _limit(console: Console, connection: Any, new: NewSecret, limits: str) -> None:
    set_limits(console.database, connection, Scope("key", new.key.id), limits)


def _calls(keys: list[NewSecret]) -> list[RequestRow]:
    rng = random.Random(7)  # noqa: S311 - what pictures show
    end = now()
    calls: list[RequestRow] = []
    for hour in range(_HOURS, 0, -1):
        for place in range(rng.randrange(4, 40)):
            new = rng.choices(keys, (6, 3, 2, 1))[0]
            outcome, error, status = rng.choices(
                (
                    ("completed", None, 200),
                    ("failed", "upstream_timeout", 504),
                    ("refused", "rate_limit_exceeded", 429),
                    ("abandoned", None, 200),
                ),
                (40, 2, 2, 1),
            )[0]
            model = rng.choice(("kimi", "kimi", "qwen3"))
            milliseconds = round(rng.lognormvariate(7.6, 0.7))
            of_site = model == "kimi" and rng.random() > 0.05
            calls.append(
                call(
                    at=end - hour * 3_600_000 + place * 80_000,
                    count=len(calls) & 0xFFF,
                    request_id=f"req_{rng.getrandbits(64):016x}",
                    key_id=new.key.id,
                    project=new.key.project,
                    model=model,
                    served=model,
                    provider="kimi-web" if of_site else "ollama",
                    outcome=outcome,
                    error=error,
                    status=status,
                    streamed=rng.random() < 0.7,
                    tokens_in=rng.randrange(20, 900),
                    tokens_out=rng.randrange(20, 600) if outcome == "completed" else 0,
                    milliseconds=milliseconds,
                    first_milliseconds=milliseconds // 4 if outcome == "completed" else None,
                    passed_over="kimi-web=context_length_exceeded" if model == "kimi" and not of_site else None,
                    action="continued",
                    prompt_size=rng.randrange(600, 1000),
                    prompt_limit=1000 if of_site else 32_768,
                    prompt_in_tokens=not of_site,
                    shortened=0,
                    dropped=rng.randrange(3) if of_site else 0,
                    session="d1c7f0a4e2b8",
                    waits=f"limits={milliseconds // 30},queue={milliseconds // 20}",
                )
            )
    return sorted(calls, key=lambda one: one.at)


if __name__ == "__main__":
    sys.exit(main())
