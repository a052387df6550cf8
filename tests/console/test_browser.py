"""The console in a real browser: from the first link to a limit that is lifted, and what never happens there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, Route, expect

from app.people.administration import new_person
from app.people.sign_in import hashed_password
from app.storage.people import Person, change_person
from tests.cluster.edge import NGINX
from tests.cluster.test_nginx_config import make_certificate
from tests.console.browser import NARROW, WIDE, Tab, launched, tab
from tests.console.running import COOKIE, PAGES, Console
from tests.live import until
from tests.ports import free_port

PASSWORD = "correct horse battery"
# Each would run, or leave a trace, if it were written raw into text, an attribute, an address or a template.
PAYLOADS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "\"'><svg onload=window.hit=1>",
    "' autofocus onfocus=window.hit=1 x='",
    "</title></textarea></script><img src=x onerror=window.hit=1>",
    "javascript:window.hit=1",
    "{{ 7 * 7 }}{% raw %}${7*7}<%= 7*7 %>",
    "<a href=javascript:window.hit=1>x</a>",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content=0;url=https://evil.example/>",
    "&lt;img src=x onerror=window.hit=1&gt;",
    "<!--<img src=--><img src=x onerror=window.hit=1>",
)


@contextmanager
def _signed_in(browser: Browser, console: Console, *, key: bool = False, **options: Any) -> Iterator[Tab]:
    """A tab of an administrator, or of a key's holder."""
    host = urlsplit(console.address).hostname
    with (
        console.signed_in("holder" if key else "admin") as somebody,
        tab(browser, console.address, **options) as opened,
    ):
        cookie = {"name": COOKIE, "value": somebody.login.cookie, "domain": host, "path": "/console"}
        opened.page.context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict
        yield opened


@pytest.fixture(scope="module")
def used_console(console: Console) -> Console:
    """A console with something on every page."""
    new = console.new_key("ada-laptop", note="the first one")
    console.record(new)
    assert console.chat(new.secret).status_code == 200
    assert console.chat(new.secret, model="nowhere").status_code == 404
    console.rows(lambda row: row["outcome"] == "refused")
    with console.signed_in("admin") as admin:
        admin.post("/console/upstreams", name="gpu", base_url="http://127.0.0.1:9", models="qwen3", do="add")
        admin.post("/console/routes", route="fast", targets="gpu/qwen3 > kimi", do="set")
        admin.post("/console/people", name="grace", role="viewer")
    return console


@pytest.mark.parametrize("way", ["/#", "/sign-in#"])
def test_a_link_signs_in_by_itself(browser: Browser, console: Console, way: str) -> None:
    """Opened, it leads to where one begins, and its secret is in no address; a second time it says what to do."""
    link = console.address + way + (ticket := console.ticket())
    with tab(browser, console.address) as opened:
        opened.page.goto(link)
        opened.page.wait_for_url("**/console/welcome")
        expect(opened.page.get_by_role("heading", level=1)).to_have_text("Welcome")
        assert ticket not in opened.page.url
        opened.page.go_back()
        assert ticket not in opened.page.url
        opened.page.goto(console.address + way + console.ticket())
        expect(opened.page).to_have_url(re.compile("^[^#]*$"))
    with tab(browser, console.address, may_fault=True) as opened:
        opened.page.goto(link)
        expect(opened.page.get_by_role("alert")).to_contain_text("console-link")


def test_a_password_and_a_key_sign_in_by_hand(browser: Browser, own_console: Console) -> None:
    """With the forms as they are; signed out, the way back shows nothing."""
    person: Person = own_console.done(new_person, "ada", "viewer")
    own_console.done(change_person, replace(person, password=hashed_password(PASSWORD)))
    new = own_console.new_key("ada-laptop")
    with tab(browser, own_console.address) as opened:
        page = opened.page
        opened.go("keys")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.locator("form.card").nth(2).get_by_role("button").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Keys")
        page.get_by_role("link", name="ada", exact=True).click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.go_back()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.get_by_label("API key").fill(new.secret)
        page.locator("form.card").nth(1).get_by_role("button").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("default/ada-laptop")
        assert page.get_by_role("navigation").get_by_role("link").all_inner_texts() == [
            "My key",
            "Requests",
            "Playground",
        ]


def test_a_form_is_sent_once_however_often_it_is_clicked(browser: Browser, console: Console) -> None:
    """The page is that of the first click, with the secret, and not the second one's: that the name is taken."""
    with _signed_in(browser, console) as opened:
        page = opened.page
        opened.go("keys/new")
        page.get_by_label("Name").fill("twice")
        button = page.get_by_role("button", name="Make a key")
        button.evaluate("button => { button.click(); setInterval(() => button.click(), 20); }")
        expect(page.locator("#secret")).to_be_visible()
        page.go_back()
        page.get_by_label("Name").fill("once more")
        button.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("The secret of once more")


def _until_answered(console: Console, secret: str) -> None:
    """Limits reach the workers within two seconds."""
    until(lambda: console.chat(secret).status_code == 200)


def test_from_welcome_to_a_limit_that_is_lifted(browser: Browser, console: Console) -> None:
    """A key is made, its first request arrives live, the next one meets its limit, which is edited."""
    with _signed_in(browser, console) as opened:
        page = opened.page
        opened.go("welcome")
        page.get_by_role("link", name="Make a key").click()
        expect(page.get_by_label("Name")).to_have_value("first")
        page.get_by_label("Limits").fill("1 request/day")
        page.get_by_role("button", name="Make a key").click()
        secret = page.locator("#secret").inner_text()
        expect(page.locator("pre").first).to_contain_text(f"curl {console.gateway.base_url}/v1/chat/completions")
        page.get_by_role("link", name="Welcome").click()
        with _signed_in(browser, console) as watching:
            watching.go("requests")
            expect(watching.page.locator("p.live")).to_be_visible()
            assert console.chat(secret).status_code == 200
            row = watching.page.locator("#rows tbody tr", has_text="default/first").first
            expect(row).to_contain_text("kimi-web")
            # The same as the server would have written it.
            live = row.inner_text()
            watching.page.reload()
            expect(row).to_be_visible()
            assert row.inner_text() == live
        page.get_by_role("link", name="It came").click()
        expect(page.locator("main")).to_contain_text("HTTP 200")
        assert console.chat(secret).status_code == 429
        page.locator("dl.facts").get_by_role("link", name="default/first").click()
        page.get_by_label("Limits").fill("5 requests/day")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Limits")).to_have_value("5 requests/day")
        expect(page.get_by_role("status")).to_have_text("● Saved.")
        _until_answered(console, secret)
        page.get_by_label("Limits").fill("five a day")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("five a day")
        opened.faults.clear()  # the browser notes the 400


def test_the_live_log_is_in_the_reader_s_language(browser: Browser, console: Console) -> None:
    """Outcomes and errors of rows that come are told in the same words as those that were there."""
    new = console.new_key("in chinese")
    with _signed_in(browser, console, locale="zh-CN") as opened:
        opened.go(f"requests?key={new.key.id}")
        expect(opened.page.locator("p.live")).to_be_visible()
        assert console.chat(new.secret).status_code == 200
        assert console.chat(new.secret, model="nobody's").status_code == 404
        rows = opened.page.locator("#rows tbody tr")
        expect(rows.filter(has_text="● 完成")).to_have_count(1)
        expect(rows.filter(has_text="✕ 没有上游提供这个模型")).to_have_count(1)
        live = rows.all_inner_texts()
        opened.page.reload()
        expect(rows).to_have_count(2)
        assert rows.all_inner_texts() == live


def test_a_paused_page_counts_what_comes(browser: Browser, console: Console) -> None:
    """Nothing moves under the reader's eyes until they go on."""
    new = console.new_key("paused page")
    with _signed_in(browser, console) as opened:
        opened.go(f"requests?key={new.key.id}")
        expect(opened.page.locator("p.live")).to_be_visible()
        opened.page.get_by_role("button", name="Pause").click()
        for _ in range(2):
            assert console.chat(new.secret).status_code == 200
        expect(opened.page.locator("#live-new")).to_have_text("2 new")
        assert opened.page.locator("#rows tbody tr").count() == 0
        opened.page.get_by_role("button", name="Resume").click()
        expect(opened.page.locator("#rows tbody tr")).to_have_count(2)


def test_the_live_log_comes_back(browser: Browser, console: Console) -> None:
    """After a page instead of rows, which a browser gives up at. Meanwhile it says so; no row is shown twice."""
    rows: list[dict[str, Any]] = [
        {"id": str(number), "at": number, "outcome": "completed", "error": None, "passed": []} for number in (1, 2)
    ]
    rows = [row | dict.fromkeys(("key_name", "model", "provider"), "x") for row in rows]
    rows = [row | dict.fromkeys(("tokens_in", "tokens_out", "estimated", "milliseconds"), 1) for row in rows]
    told = [f"retry: 10\nid: {row['id']}\ndata: {json.dumps(row)}\n\n" for row in rows]
    feeds = iter([(200, told[0]), (503, ""), (200, "".join(told))])
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(urlsplit(route.request.url).query)
        status, body = next(feeds, (0, ""))
        if status:
            route.fulfill(status=status, body=body, content_type="text/event-stream")

    with _signed_in(browser, console, may_fault=True) as opened:
        page = opened.page
        page.clock.install()
        page.route("**/requests/feed?*", answer)
        opened.go("requests?model=nobody-asks-it")
        state = page.locator("#live-state")
        expect(state).to_contain_text("not live")
        page.clock.fast_forward(5000)
        expect(state).to_have_text("● live")
        expect(page.locator("#rows tbody tr")).to_have_count(2)
        assert [query.rpartition("last=")[2] for query in asked[:3]] == ["", "", "1"]


def test_a_playground_whose_login_has_ended_says_what_to_do(browser: Browser, console: Console) -> None:
    """What comes instead of an answer is the page to sign in."""
    console.new_key()
    with _signed_in(browser, console) as opened:
        opened.go("playground")
        opened.page.get_by_label("Message", exact=True).fill("Hello")
        opened.page.context.clear_cookies()
        opened.page.get_by_role("button", name="Send").click()
        expect(opened.page.locator("#result-1 [data-part=state]")).to_have_text(
            "✕ No answer. Load the page anew to see why."
        )


@pytest.mark.parametrize(
    ("scheme", "locale", "viewport"),
    [("light", "en-GB", WIDE), ("dark", "zh-CN", NARROW)],
)
def test_every_page_is_within_reach(
    browser: Browser, used_console: Console, scheme: str, locale: str, viewport: dict[str, int]
) -> None:
    """In both themes and languages, wide and on a telephone: axe finds nothing, nothing is cut off."""
    options: dict[str, Any] = {"color_scheme": scheme, "locale": locale, "viewport": viewport}
    found: list[str] = []
    with _signed_in(browser, used_console, may_fault=True, **options) as opened:
        # Of the key that is recorded: on a busy machine others may have been refused, too, for another reason.
        key_id = used_console.rows(lambda row: (row["outcome"], row["status"]) == ("refused", 404))[0]["key_id"]
        recorded = used_console.rows(lambda row: (row["key_id"], row["outcome"]) == (key_id, "completed"))[0]["id"]
        details = [f"requests/{used_console.rows()[0]['id']}", f"keys/{key_id}", f"requests/{recorded}"]
        others = ("upstreams/gpu", "upstreams?model=fast", "limits/project:default", "limits/upstream:gpu", "nowhere")
        for page in (*PAGES, *others, f"sessions?key={key_id}", *details):
            assert opened.go(page) == (404 if page == "nowhere" else 200), page
            found += opened.axe()
            if opened.overflow() > 0:
                found.append(f"{page} is {opened.overflow()} pixels wider than the window")
            assert opened.page.locator("html").get_attribute("lang") == ("zh-CN" if locale == "zh-CN" else "en")
        opened.page.locator("#texts form[action$='/texts'] button").click()
        expect(opened.page.locator("#texts pre").first).to_have_text("user: Hello")
        found += opened.axe()
        # Pages that forms lead to.
        for page, button, seen in (
            (details[-1], "form[action$='/playground'] button", "textarea[name=message]"),
            ("people", "form[action$='/link'] button", "#secret"),
            ("recordings", "button[value=start]", "button[value=stop]"),
        ):
            opened.go(page)
            opened.page.locator(button).first.click()
            expect(opened.page.locator(seen).first).to_be_visible()
            found += opened.axe()
            if opened.overflow() > 0:
                found.append(f"what {page} leads to is {opened.overflow()} pixels wider than the window")
    with tab(browser, used_console.address, may_fault=True, **options) as opened:
        for page in ("sign-in", "nowhere"):
            opened.go(page)
            found += opened.axe()
    assert found == []


def test_language_and_theme_are_chosen_by_a_button(browser: Browser, used_console: Console) -> None:
    """And stay chosen; the page is the same one, with its filters."""
    with _signed_in(browser, used_console) as opened:
        page = opened.page
        opened.go("requests?outcome=completed")
        page.get_by_role("button", name="中文").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("请求")
        assert page.url.endswith("/requests?outcome=completed")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("button[name=theme]").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        opened.go("keys")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.get_by_role("button", name="EN").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Keys")


def test_pages_are_reached_by_keys(browser: Browser, used_console: Console) -> None:
    """`g` and a letter lead to a page, `/` to the search; what is typed into a field leads nowhere."""
    with _signed_in(browser, used_console) as opened:
        page = opened.page
        heading = page.get_by_role("heading", level=1)
        opened.go("")
        for letter, name in (("k", "Keys"), ("r", "Requests"), ("u", "Upstreams"), ("c", "Changes"), ("o", "Overview")):
            page.keyboard.press("g")
            page.keyboard.press(letter)
            expect(heading).to_have_text(name)
        opened.go("keys")
        page.keyboard.press("k")
        page.keyboard.press("/")
        expect(page.get_by_label("Search")).to_be_focused()
        page.keyboard.type("gr/")
        expect(page.get_by_label("Search")).to_have_value("gr/")
        expect(heading).to_have_text("Keys")


def test_without_scripts_all_but_the_live_parts_works(browser: Browser, used_console: Console) -> None:
    """A link is pasted, a key is made, changed, paused and given another secret, and one signs out."""
    with tab(browser, used_console.address, java_script_enabled=False) as opened:
        page = opened.page
        opened.go("")
        page.get_by_label("Link").fill(f"{used_console.address}/#{used_console.ticket()}")
        page.locator("#ticket-form").get_by_role("button").click()
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_have_text("Overview")
        for name in page.get_by_role("navigation").get_by_role("link").all_inner_texts():
            page.get_by_role("link", name=name, exact=True).first.click()
            expect(heading).to_have_text(name)
        opened.go("keys/new")
        page.get_by_label("Name").fill("no scripts")
        page.get_by_role("button", name="Make a key").click()
        assert page.locator("#secret").inner_text().startswith("sk-")
        page.get_by_role("link", name="To the key").click()
        page.get_by_label("Note").fill("changed")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Note")).to_have_value("changed")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("main")).to_contain_text("paused")
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="New secret").click()
        assert page.locator("#secret").inner_text().startswith("sk-")
        opened.go("recordings")
        page.get_by_label("Key").select_option(label="default/no scripts")
        page.get_by_role("button", name="Record", exact=True).click()
        row = page.locator("main tr", has_text="default/no scripts")
        expect(row).to_contain_text("Being recorded")
        row.get_by_role("button", name="Delete all texts").click()
        expect(row).to_have_count(0)
        opened.go("people")
        page.get_by_label("Name").fill("without scripts")
        page.get_by_role("button", name="Add a person").click()
        assert "#" in page.locator("#secret").inner_text()
        opened.go("upstreams")
        page.locator("#add").get_by_label("Name", exact=True).fill("no-scripts")
        page.locator("#add").get_by_label("Address", exact=True).fill("http://127.0.0.1:9")
        page.locator("#add").get_by_role("button", name="Add an upstream").click()
        page.get_by_role("link", name="no-scripts", exact=True).first.click()
        page.get_by_role("button", name="Disable").click()
        expect(page.locator("main tr", has_text="no-scripts").first).to_contain_text("disabled")
        opened.go("account")
        page.get_by_role("button", name="Sign out").click()
        expect(heading).to_have_text("Sign in")


def _poison(console: Console) -> list[str]:
    """Put every payload wherever somebody may write something; the pages that show them."""
    pages: list[str] = []
    for place, payload in enumerate(PAYLOADS):
        new = console.new_key(payload, project=f"p{place}{payload}"[:100], note=payload, models=["*"])
        with console.gateway.client(new.secret) as client:
            message = {"messages": [{"role": "user", "content": payload}]}
            headers = {"x-session-id": payload, "user-agent": payload}
            client.post("/v1/chat/completions", json={**message, "model": "kimi", "user": payload}, headers=headers)
            client.post("/v1/chat/completions", json={**message, "model": payload, "user": payload}, headers=headers)
        pages.append(f"keys/{new.key.id}")
        rows = console.rows(lambda row, key=new.key.id: row["key_id"] == key)  # type: ignore[misc]
        pages.append(f"requests/{rows[0]['id']}")
    with console.signed_in("admin") as admin:
        models = ", ".join(payload.replace("=", "-") for payload in PAYLOADS)
        fields = {"base_url": "http://127.0.0.1:9", "models": models, "more": '{"queue": 3}'}
        assert admin.post("/console/upstreams", name="gpu", do="add", **fields).status_code == 303
        for place, payload in enumerate(PAYLOADS):
            name = f"{place}{payload}"
            assert admin.post("/console/routes", route=name, targets="kimi", do="set").status_code == 303, name
            assert admin.post("/console/people", name=name[:60], role="viewer").status_code == 200, name
    console.record(new)
    return pages


def _recorded(console: Console) -> str:
    """Record a call with every payload in its message; its page."""
    new = console.new_key(PAYLOADS[0], project="recorded")
    console.record(new)
    assert console.chat(new.secret, messages=[{"role": "user", "content": "\n".join(PAYLOADS)}]).status_code == 200
    (row,) = console.rows(lambda row: row["key_id"] == new.key.id)
    return f"requests/{row['id']}"


def _is_clean(page: Page) -> bool:
    clean: bool = page.evaluate(
        "window.hit === undefined && !document.querySelector('main img, main script, main base, main svg[onload], "
        "main [onfocus], main a[href^=javascript]')"
    )
    return clean and "evil.example" not in urlsplit(page.url).netloc


def test_nothing_that_others_write_is_ever_run(browser: Browser, own_console: Console) -> None:
    """Names, notes, models, end users, sessions, agents, errors, recorded texts: each is shown as text, as written."""
    console = own_console
    with _signed_in(browser, console, user_agent=PAYLOADS[1]) as opened:
        opened.go("requests")
        expect(opened.page.locator("p.live")).to_be_visible()
        pages = _poison(console)
        expect(opened.page.locator("#rows tbody tr", has_text=f"{PAYLOADS[-1]}").first).to_be_visible()
        assert _is_clean(opened.page)
        with tab(browser, console.address, user_agent=PAYLOADS[1]) as other:  # whose agent is on the account's page
            other.page.goto(f"{console.address}/#{console.ticket()}")
            other.page.wait_for_url("**/console/")
            other.go("account")
            expect(other.page.locator("main")).to_contain_text(PAYLOADS[1])
            assert _is_clean(other.page)
        queries = [
            *(f"keys?q={name}" for name in ("%22%3E%3Csvg%20onload=window.hit=1%3E", "'-alert(1)-'")),
            "upstreams?probed=%3Cimg%20src=x%20onerror=window.hit=1%3E&outcome=%3Cscript%3Ewindow.hit=1%3C/script%3E",
            "requests?error=%22%3E%3Cimg%20src=x%20onerror=window.hit=1%3E&model=%3Cscript%3E&cursor=%22%3E%3Cb%3E",
            "audit?subject=%22%3E%3Cimg%20src=x%20onerror=window.hit=1%3E",
        ]
        projects = ["limits/project:" + quote(f"p0{PAYLOADS[0]}"[:100], safe=""), "upstreams/gpu"]
        for page in (*PAGES, *queries, *projects, *pages):
            opened.go(page)
            assert _is_clean(opened.page), page
        opened.go(recorded := _recorded(console))
        opened.page.locator("#texts form[action$='/playground'] button").click()
        message = opened.page.locator("textarea[name=message]")
        for payload in PAYLOADS:
            expect(message).to_have_value(re.compile(re.escape(payload)))
        assert _is_clean(opened.page)
        opened.go(recorded)
        opened.page.locator("#texts form[action$='/texts'] button").click()
        for payload in PAYLOADS:
            expect(opened.page.locator("#texts pre").first).to_contain_text(payload)
        assert _is_clean(opened.page)
        opened.go("keys")
        for payload in PAYLOADS:
            expect(opened.page.locator("main table a", has_text=payload).first).to_be_visible()
        assert "49" not in opened.page.locator("main table", has_text="{{ 7 * 7 }}").first.inner_text().split()


@contextmanager
def _nginx(folder: Path, worker: str) -> Iterator[str]:
    """nginx with https that serves the console at `/some/prefix`, which it takes off; its address."""
    assert NGINX, "nginx is not installed (./dev test installs it)"
    certificate, key = make_certificate(folder)
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
        pid {folder}/nginx.pid;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
            uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate};
                ssl_certificate_key {key};
                location /some/prefix/ {{
                    proxy_pass {worker}/;
                    proxy_buffering off;
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Prefix /some/prefix;
                }}
            }}
        }}
    """)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    subprocess.run(command, check=True, timeout=30)
    try:
        yield f"https://127.0.0.1:{port}/some/prefix/console"
    finally:
        subprocess.run([*command, "-s", "stop"], check=True, timeout=30)


def test_below_a_path_of_an_https_proxy(browser: Browser, used_console: Console, tmp_path: Path) -> None:
    """Link, every page, a form and the live log work there, and the cookie is one that http never sees."""
    with (
        _nginx(tmp_path, used_console.gateway.base_url) as home,
        tab(browser, home, ignore_https_errors=True) as opened,
    ):
        page = opened.page
        page.goto(f"{home}/#{used_console.ticket()}")
        page.wait_for_url("**/some/prefix/console/")
        (cookie,) = [one for one in page.context.cookies() if one["name"].endswith(COOKIE)]
        assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == (f"__Host-{COOKIE}", True, True)
        for name in page.get_by_role("navigation").get_by_role("link").all_inner_texts():
            page.get_by_role("link", name=name, exact=True).first.click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
        opened.go("keys/new")
        page.get_by_label("Name").fill("below a path")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("pre").first).to_contain_text(f"{home.removesuffix('/console')}/v1/chat/completions")
        secret = page.locator("#secret").inner_text()
        opened.go("requests")
        expect(page.locator("p.live")).to_be_visible()
        assert used_console.chat(secret).status_code == 200
        expect(page.locator("#rows tbody tr", has_text="below a path").first).to_be_visible()
        opened.go("account")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/some/prefix/console/sign-in")


_ASKS = """async () => {
    const me = await (await fetch("/admin/v1/me")).json();
    const make = (headers) => fetch("/admin/v1/keys", {
        method: "POST", body: '{"name": "made by a script"}', headers: {"Content-Type": "application/json", ...headers},
    });
    return [(await make({})).status, (await make({"X-CSRF-Token": me.csrf_token})).status];
}"""


def test_a_script_uses_the_admin_api_by_the_cookie(browser: Browser, console: Console) -> None:
    """On a page of the console, with the token of the login."""
    with tab(browser, console.address, may_fault=True) as opened:
        opened.page.goto(f"{console.address}/#{console.ticket()}")
        expect(opened.page.get_by_role("navigation").first).to_be_visible()
        assert opened.page.evaluate(_ASKS) == [403, 201]


def test_a_missing_browser_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what to install, rather than by a path that isn't there."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(AssertionError, match="Chromium is not installed"):
        launched(None)  # type: ignore[arg-type]  # it doesn't come so far
