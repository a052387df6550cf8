"""The console's pages as HTTP answers: what comes with them, and where they are."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from app.domain.granting import Scope
from app.keys.administration import revoke_key, rotate_key
from app.keys.secret import digest_of
from app.storage.clock import now
from app.storage.keys import key_of, note_last_uses
from app.storage.limits import set_limits
from simulator.live import LiveSimulator
from tests import databases
from tests.conftest import RunLog
from tests.console.running import PAGES, Console, Signed, console_of
from tests.databases import PostgresServer
from tests.live import until
from tests.storage.calls import call, write

own_postgres = databases.own_postgres


@pytest.fixture(scope="module")
def admin(console: Console) -> Iterator[Signed]:
    """An administrator."""
    with console.signed_in("admin") as admin:
        yield admin


class _Addresses(HTMLParser):
    """All that a page leads to, loads or sends to; and what must not be in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.linked: set[str] = set()
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "link", "img"):
            self.loaded.add(given.get("src") or given.get("href") or "")
        elif target := given.get("href") or given.get("action"):
            self.linked.add(target)
        self.linked |= {given[name] for name in ("data-feed", "data-link") if name in given}
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_one_answer_and_files_that_never_change(admin: Signed, page: str) -> None:
    """It says so by its headers; nothing in it is inline, and what it loads is kept by browsers for ever."""
    response = admin.client.get(f"/console/{page}")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    found = _Addresses(response.text)
    assert found.inline == []
    assert found.loaded
    for address in found.loaded:
        assert address.startswith("/console/static/")
        file = admin.client.get(address)
        assert file.status_code == 200
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_scripts_import_what_pages_load(admin: Signed) -> None:
    """A module that several scripts use is one file at one address, which is loaded once."""
    found = _Addresses(admin.client.get("/console/requests").text)
    (feed,) = [address for address in found.loaded if address.endswith("/feed.js")]
    imported = re.findall(r'from "\./([a-z]+\.js)"', admin.client.get(feed).text)
    assert imported
    assert {feed.replace("feed.js", name) for name in imported} <= found.loaded


@pytest.mark.parametrize("name", ["../rendering.py", "..%2frendering.py", "missing.js", "%2e%2e/app.py", ""])
def test_only_files_for_pages_are_served(admin: Signed, name: str) -> None:
    """Nothing beside them, and an older version's address isn't kept."""
    assert admin.client.get(f"/console/static/0/{name}").status_code == 404
    assert admin.client.get("/console/static/0/console.css").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("page", PAGES)
def test_below_a_prefix_everything_stays_below_it(admin: Signed, page: str) -> None:
    """A proxy that serves the gateway at /some/prefix says so; links, forms and files follow."""
    found = _Addresses(admin.client.get(f"/console/{page}", headers={"x-forwarded-prefix": "/some/prefix"}).text)
    ours = {address for address in found.linked if not address.startswith("#")}
    assert {address for address in found.loaded | ours if not address.startswith("/some/prefix/console/")} == set()


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("Cloudflare demands a browser", "The chat page has no nonce", "replayed")),
        ("zh", ("Cloudflare 要求用浏览器验证", "聊天页面里没有 nonce", "重复应答")),
    ],
)
def test_outcomes_and_errors_are_told_in_words(
    console: Console, admin: Signed, language: str, words: tuple[str, ...]
) -> None:
    """In the log, and of one request together with the code; a code that nobody knows stands for itself."""
    rows = [
        call(at=now(), key_id=f"k_{language}", outcome="failed", error=error, passed_over="kimi-web=nonce_missing")
        for error in ("cloudflare_challenge", "brand_new_trouble")
    ]
    replayed = call(at=now(), key_id=f"k_{language}", outcome="replayed")
    write(console.database, [msgspec.structs.replace(row, count=place) for place, row in enumerate([*rows, replayed])])
    headers = {"accept-language": language}
    log = admin.client.get(f"/console/requests?key=k_{language}", headers=headers).text
    shown = log[log.index("<tbody>") :]
    for word in (*words, "brand_new_trouble"):
        assert word in shown
    (failed,) = console.rows(lambda row: row["key_id"] == f"k_{language}" and row["error"] == "cloudflare_challenge")
    detail = admin.client.get(f"/console/requests/{failed['id']}", headers=headers).text
    for word in (words[0], "<code>cloudflare_challenge</code>", words[1], "<code>nonce_missing</code>"):
        assert word in detail


def test_an_upstream_is_not_passed_over_for_itself(console: Console, admin: Signed) -> None:
    """Its own error is the request's; the upstreams before it are named with theirs."""
    row = call(
        at=now(),
        key_id="k_passed",
        provider="kimi-web",
        outcome="failed",
        error="site_changed",
        passed_over="gpu=upstream_timeout,kimi-web=site_changed",
    )
    write(console.database, [row])
    log = admin.client.get("/console/requests?key=k_passed").text
    assert re.findall(r"⟵ ([^ ]+)", log) == ["gpu"]


def test_the_settings_say_how_large_the_database_is(admin: Signed) -> None:
    """And which commands look after it."""
    shown = admin.client.get("/console/settings").text
    assert re.search(r"<dd>SQLite</dd><dt>Size, about</dt><dd>\d+ KB</dd>", shown)
    assert "main.py database backup" in shown


def test_a_request_and_a_session_are_found_by_their_ids(console: Console) -> None:
    """An id leads to its request, whoever gave it; a session's own id needs its key. Holders find only their own."""
    with console.signed_in("holder") as holder, console.signed_in("admin") as admin:
        assert holder.key is not None
        key_id = holder.key.key.id
        with console.gateway.client(holder.key.secret) as client:
            body = {"messages": [{"role": "user", "content": "Hello"}], "user": "ada"}
            for request_id in ("of-ada", "20261127"):
                client.post("/v1/chat/completions", json=body, headers={"x-request-id": request_id}).raise_for_status()
        rows = until(lambda: found if len(found := console.rows(lambda row: row["key_id"] == key_id)) == 2 else None)
        assert rows is not None
        for row in rows:
            for words in (row["request_id"], str(row["id"])):
                for somebody in (admin, holder):
                    location = somebody.client.get("/console/requests", params={"q": words}).headers["location"]
                    assert location == f"/console/requests/{row['id']}"
        session = rows[0]["session"]
        for query in ({"q": session}, {"session": session}, {"q": "ada", "key": key_id}):
            shown = admin.client.get("/console/requests", params=query).text
            assert shown.count('<a href="/console/requests/') == 2
            assert f'name="q" type="search" value="{query.get("q", session)}"' in shown
        assert "No request matches" in admin.client.get("/console/requests?q=ada").text
        assert f"session={session}" in admin.client.get(f"/console/requests/{rows[0]['id']}").text
        with console.signed_in("holder") as other:
            for words in ("of-ada", "20261127", str(rows[0]["id"]), session):
                assert "No request matches" in other.client.get("/console/requests", params={"q": words}).text
            assert "No requests." in other.client.get("/console/requests").text


def test_below_a_prefix_one_comes_back_below_it(console: Console) -> None:
    """Being asked to sign in, signing in, and choosing a language lead to pages with the prefix, once."""
    headers = {"x-forwarded-prefix": "/some/prefix"}
    with console.stranger() as client:
        asked = client.get("/console/keys?q=ada", headers=headers).headers["location"]
        assert asked == "/some/prefix/console/sign-in?next=/some/prefix/console/keys%3Fq%3Dada"
        fields = {"ticket": console.ticket(), "next": "/some/prefix/console/keys"}
        entered = client.post("/console/sign-in", data=fields, headers=headers)
        assert entered.headers["location"] == "/some/prefix/console/keys"
        assert "Path=/some/prefix/console" in entered.headers["set-cookie"]
        assert client.get("/console", headers=headers).headers["location"] == "/some/prefix/console/"


def test_a_form_leads_back_below_the_prefix(admin: Signed) -> None:
    """The page of limits comes back to itself."""
    headers = {"x-forwarded-prefix": "/some/prefix"}
    form = {"csrf": admin.csrf, "do": "unset"}
    saved = admin.client.post("/console/limits/gateway", data=form, headers=headers)
    assert (saved.status_code, saved.headers["location"]) == (303, "/some/prefix/console/limits/gateway?saved=1")


def test_an_untrusted_client_has_no_say_over_links(admin: Signed) -> None:
    """What isn't a prefix is none."""
    for prefix in ("//evil.example", "https://evil.example", '/"><script>', "/a b"):
        text = admin.client.get("/console/", headers={"x-forwarded-prefix": prefix}).text
        assert "evil" not in text
        assert 'href="/console/keys"' in text


@pytest.mark.parametrize(
    "page", ["nowhere", "keys/k_nobody", "requests/1", "requests/one", "keys/%00", "requests/" + "9" * 30]
)
def test_what_is_not_there_is_told_on_a_page(admin: Signed, page: str) -> None:
    """A 404 in the console's own form, with a way back."""
    response = admin.client.get(f"/console/{page}")
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "query", ["cursor=wrong", "cursor=", "span=9y", "outcome=%01", "key=%ff", "model=" + "a" * 5000]
)
def test_a_strange_question_gets_an_answer(admin: Signed, query: str) -> None:
    """Filters that make no sense are left out, or find nothing."""
    for page in ("requests", "audit", "keys"):
        assert admin.client.get(f"/console/{page}?{query}").status_code == 200


@pytest.mark.parametrize(
    ("without", "told"), [("share", "each worker keeps to its share"), ("refuse", "calls that have limits are refused")]
)
def test_the_overview_says_what_becomes_of_limits(
    site: LiveSimulator, run_log: RunLog, tmp_path: Path, without: str, told: str
) -> None:
    """While they can't be shared: what LIMITS_WITHOUT_DATABASE says, and not what it might have said."""
    with (
        console_of(site, run_log.stream, tmp_path, limits_without_database=without) as console,
        console.signed_in("admin") as admin,
    ):
        limited = console.new_key()
        with console.database.transaction() as connection:
            set_limits(console.database, connection, Scope("key", limited.key.id), "60 requests/minute")
        assert 'class="banner"' not in admin.client.get("/console/").text
        console.done(lambda connection: connection.exec_driver_sql("ALTER TABLE worker RENAME TO elsewhere"))

        def is_told() -> bool:
            console.chat(limited.secret)
            return 'class="banner"' in admin.client.get("/console/").text

        until(is_told)
        assert told in admin.client.get("/console/").text
        console.done(lambda connection: connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO worker"))


def test_without_its_database_the_console_says_so(
    own_postgres: PostgresServer, site: LiveSimulator, run_log: RunLog, tmp_path: Path
) -> None:
    """A page with 503 for whoever is signed in and for strangers, while chats are still answered."""
    url = own_postgres.new_database()
    with (
        console_of(site, run_log.stream, tmp_path, database_url=url, limits_without_database="refuse") as console,
        console.signed_in("admin") as admin,
    ):
        assert admin.client.get("/console/").status_code == 200
        console.database.close()
        own_postgres.stop()
        for path in ("/console/", "/console/keys", "/console/sign-in"):
            response = admin.client.get(path)
            assert response.status_code == 503
            assert "The database can't be reached" in response.text.replace("&#39;", "'")
            assert "calls that have limits are refused; all others" in response.text
        with console.stranger() as client:
            assert client.get("/console/sign-in").status_code == 200
            assert client.post("/console/sign-in", data={"ticket": "wrong"}).status_code == 503
        assert console.chat().status_code == 200
        own_postgres.start()


def test_a_form_that_is_saved_unchanged_keeps_a_key_s_end(console: Console, admin: Signed) -> None:
    """The form has the day only: a time within it, which the admin API can set, is kept; another day is taken."""
    key = console.new_key(expires_at=1_893_499_200_000).key  # noon
    path = f"/console/keys/{key.id}"
    for day, end in (("2030-01-01", 1_893_499_200_000), ("2030-01-02", 1_893_628_800_000), ("", None)):
        assert admin.post(path, name=key.name, project=key.project, expires=day).status_code == 303
        assert console.done(key_of, key.id).expires_at == end


def test_a_form_undoes_no_change_that_came_between(console: Console, admin: Signed) -> None:
    """Two people had the page open: the second one to save is told, and may replace what the first one saved."""
    new = console.new_key()
    path = f"/console/keys/{new.key.id}"

    def version(page: str) -> str:
        return page.split('name="version" value="')[1].partition('"')[0]

    seen = version(admin.client.get(path).text)
    fields = {"name": new.key.name, "project": new.key.project}
    assert admin.post(path, **fields, note="of the first", version=seen).status_code == 303
    refused = admin.post(path, **fields, note="of the second", version=seen)
    assert refused.status_code == 400
    assert "has been changed since the page was loaded" in refused.text
    assert console.done(key_of, new.key.id).note == "of the first"
    assert admin.post(path, **fields, note="of the second", version=version(refused.text)).status_code == 303
    assert console.done(key_of, new.key.id).note == "of the second"


@pytest.mark.parametrize("action", ["pause", "resume", "rotate"])
def test_a_page_says_that_a_revoked_key_stays_revoked(console: Console, admin: Signed, action: str) -> None:
    """As the admin API and the command line do: somebody else may have revoked it since the page was loaded."""
    key = console.new_key().key
    console.done(lambda connection: revoke_key(console.database, connection, key))
    refused = admin.post(f"/console/keys/{key.id}/{action}")
    assert refused.status_code == 409
    assert "is revoked; make a new one." in refused.text


def test_a_key_s_page_says_when_each_secret_was_last_used(console: Console, admin: Signed) -> None:
    """And until when an older one works."""
    new = console.new_key()
    console.done(lambda connection: rotate_key(console.database, connection, new.key, grace_seconds=3600))
    digest = digest_of(new.secret)
    console.done(
        lambda connection: note_last_uses(console.database, connection, digests=[digest], at=1_764_000_000_000)
    )
    page = admin.client.get(f"/console/keys/{new.key.id}").text
    newer, older = re.findall(r"<li>(<code>sk-kimi-.*?)</li>", page)
    assert "no use noted" in newer
    assert "last use" in older
    assert "2025-11-24T" in older
    assert "works until" in older


def test_settings_are_explained_in_the_reader_s_language(admin: Signed) -> None:
    """Groups and meanings; values and names are the same in every language."""
    english, chinese = (
        admin.client.get("/console/settings", headers={"accept-language": language}).text for language in ("en", "zh")
    )
    assert "The Kimi site" in english
    assert "The longest answer of an upstream that is read." in english
    for said in ("Kimi 站点", "读取的上游回答的最大长度。", "MAX_REPLY_BYTES"):
        assert said in chinese
    assert "longest answer" not in chinese
