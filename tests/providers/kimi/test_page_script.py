"""What is read off the chat page's script, however WordPress and its plugins write it."""

import base64
import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from hypothesis import given

from app.domain.errors import NonceMissing
from app.providers.kimi.page import PageReader, read_script
from tests.domain.strategies import UNTIMED, texts

NONCE = "0a1b2c3d4e"
AJAX_URL = "https://kimi.example/wp-admin/admin-ajax.php"
ESCAPED_URL = r"https:\/\/kimi.example\/wp-admin\/admin-ajax.php"
SCRIPT = rf'{{"ajax_url":"{ESCAPED_URL}","nonce":"{NONCE}"}}'


def _page(script: str) -> str:
    return f"<!DOCTYPE html>\n<html><head><title>Chat</title></head><body>\n<script>\n{script}\n</script></body></html>"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(f"var kimi_ajax = {SCRIPT};", id="as WordPress prints it"),
        pytest.param(f"/* <![CDATA[ */\nvar kimi_ajax = {SCRIPT};\n/* ]]> */", id="in a CDATA section"),
        pytest.param(f"var a=1;var kimi_ajax={SCRIPT};var b=2", id="minified"),
        pytest.param(f"window.kimi_ajax = {SCRIPT}", id="on the window"),
        pytest.param(f"window['kimi_ajax']={SCRIPT}", id="by name"),
        pytest.param(f'window["kimi_ajax"] = {SCRIPT}', id="by name in double quotes"),
        pytest.param(f"let kimi_ajax\n  =\n  {SCRIPT}", id="over several lines"),
        pytest.param(f"var kimi_ajax = {json.dumps(json.loads(SCRIPT), indent=4)};", id="indented"),
        pytest.param(
            'var kimi_ajax = {"i18n":{"nonce":"wrong","hint":"a };\\n{ \\" } </b>"},"list":[{"nonce":"wrong"}],'
            + SCRIPT[1:],
            id="nested, with braces in texts",
        ),
        pytest.param(f'var kimi_ajax = {{"hint":"a\tb",{SCRIPT[1:]}', id="with a raw tab in a text"),
        pytest.param(f'var other = {{"nonce":"wrong"}}; var kimi_ajax = {SCRIPT};', id="after another variable"),
        pytest.param(f"var my_kimi_ajax = {{}}; var kimi_ajax = {SCRIPT};", id="after a longer name"),
        pytest.param(f"var kimi_ajax = {{}};\nvar kimi_ajax = {SCRIPT};", id="after an empty one"),
        pytest.param(f'var kimi_ajax = {{"nonce":""}}; kimi_ajax = {SCRIPT};', id="after an empty nonce"),
        pytest.param(f"var kimi_ajax = {{nonce: 'x'}}; var kimi_ajax = {SCRIPT};", id="after one that is no nonce"),
        pytest.param(f"var kimi_ajax={{ajax_url:'{AJAX_URL}',nonce:'{NONCE}'}}", id="with bare keys"),
        pytest.param(f"var kimi_ajax = {{'ajax_url': '{ESCAPED_URL}', 'nonce': '{NONCE}' }}", id="in single quotes"),
        pytest.param(f"var kimi_ajax = {{ajax_url: `{AJAX_URL}`, nonce: `{NONCE}`,}};", id="in backquotes"),
        pytest.param(f'var kimi_ajax = {{"ajax_url":"{AJAX_URL}","nonce":"{NONCE}",}};', id="with a comma at the end"),
        pytest.param(
            "var kimi_ajax = { // for 'the' {chat}\n"
            f"  /* nonce: 'wrong', */ ajax_url: '{AJAX_URL}', // \"nonce\":\"wrong\"\n  nonce /* ! */ : '{NONCE}' }};",
            id="with comments",
        ),
        pytest.param(
            r"var kimi_ajax = {'hint': 'it\'s a }', \"more\": \"\\\\\", ajax_url: 'https:\x2F\u002fkimi.example"
            r"\/wp\u{2d}admin\/admin-ajax.php', 'nonce': '\x30a1b\u0032c3d4e'};",
            id="with escapes",
        ),
        pytest.param(
            "var kimi_ajax = {i18n: {nonce: 'wrong', list: ['a', {b: ')'}]}, on: function (e) { return {nonce: e}; }, "
            f"is_on: !0, size: -1.5e3, later: window.nonce, ...rest, ajax_url: '{AJAX_URL}', nonce: '{NONCE}'}};",
            id="with values of all kinds",
        ),
        pytest.param(f"window.kimi_ajax = window.kimi_ajax || {SCRIPT};", id="unless it is set"),
        pytest.param(f"const kimi_ajax = Object.freeze({SCRIPT});", id="frozen"),
        pytest.param(f"kimi_ajax = Object.assign({{}}, {SCRIPT});", id="assigned"),
        pytest.param(f"kimi_ajax = ({SCRIPT})", id="in brackets"),
        pytest.param(f"var kimi_ajax = /* set by the plugin */ {SCRIPT};", id="behind a comment"),
        pytest.param(f"var kimi_ajax = JSON.parse('{SCRIPT}');", id="parsed"),
        pytest.param(
            f"var kimi_ajax = {{}}; kimi_ajax.nonce = '{NONCE}'; kimi_ajax.ajax_url=\"{AJAX_URL}\"", id="by parts"
        ),
        pytest.param(f"kimi_ajax['ajax_url'] = '{AJAX_URL}';\nkimi_ajax[\"nonce\"] = '{NONCE}'", id="by names"),
        pytest.param(
            f"// var kimi_ajax = {{nonce: 'commented-out'}};\nvar kimi_ajax = {SCRIPT};", id="after a commented-out one"
        ),
        pytest.param(
            f"/* var kimi_ajax = {{nonce: 'commented-out'}}; */ var kimi_ajax = {SCRIPT};",
            id="after a comment with one",
        ),
        pytest.param(f'{{"href_matches":"/*"}}</script><script>var kimi_ajax = {SCRIPT};', id="after half a comment"),
        pytest.param(
            '</script><script src="data:text/javascript;base64,'
            + base64.b64encode(f"var kimi_ajax = {SCRIPT};".encode()).decode()
            + '" defer></script><script>',
            id="in the address of a script",
        ),
        pytest.param(
            f'</script><script src="data:text/javascript,{quote(f"var kimi_ajax = {SCRIPT};")}"></script><script>',
            id="in the address of a script, quoted",
        ),
        pytest.param(html.escape(f"var kimi_ajax = {SCRIPT};"), id="escaped as text"),
        pytest.param(f"</script><i data-kimi_ajax='{html.escape(SCRIPT)}'></i><script>", id="in an attribute"),
        pytest.param(f'</script><i data-kimi_ajax="{html.escape(SCRIPT)}"></i><script>', id="in another attribute"),
        pytest.param(
            f'</script><script type="application/json" id="kimi_ajax">{SCRIPT}</script><script>', id="in an element"
        ),
        pytest.param(f"var kimi_ajax = JSON.parse(decodeURIComponent('{quote(SCRIPT)}'));", id="decoded and parsed"),
        pytest.param(
            f"var kimi_ajax = JSON.parse(atob('{base64.b64encode(SCRIPT.encode()).decode()}'));", id="from base64"
        ),
        pytest.param(f'var kimi_ajax = {{"ajax_url":"{AJAX_URL}","nonce":" {NONCE}\n"}};', id="with blanks around it"),
        pytest.param(f"var kimi_ajax = {{nonce: 'cached-one'}}; var kimi_ajax = {SCRIPT};", id="after an older one"),
        pytest.param(
            f"var kimi_ajax = {{nonce: 'cached-one', ajax_url: 'x'}}; "
            f"kimi_ajax.nonce = '{NONCE}'; kimi_ajax.ajax_url = '{AJAX_URL}';\n// kimi_ajax.nonce = 'commented-out'",
            id="put right afterwards",
        ),
        pytest.param(f"var kimi_ajax = {SCRIPT}; var kimi_ajax = {{}};", id="before an empty one"),
        pytest.param(f"if (kimi_ajax == null) kimi_ajax = load();\nvar kimi_ajax = {SCRIPT};", id="after its own use"),
    ],
)
def test_the_script_is_read_in_every_style(script: str) -> None:
    """Nonce and address come out of the variable, whatever stands around, before and inside it."""
    assert read_script(_page(script)) == (NONCE, AJAX_URL)


@pytest.mark.parametrize(
    ("value", "nonce"),
    [('"0a1b2c3d4e"', "0a1b2c3d4e"), ("1234567890", "1234567890"), ('"0123456789"', "0123456789")],
)
def test_a_nonce_may_be_a_number(value: str, nonce: str) -> None:
    """A nonce of digits only, which some plugins print without quotes, is a text like any other."""
    assert read_script(_page(f'var kimi_ajax = {{"nonce":{value}}};')) == (nonce, None)


@pytest.mark.parametrize("ajax_url", ["null", "5", "{}", "[]", "false"])
def test_an_address_that_is_none_is_left_out(ajax_url: str) -> None:
    """The nonce counts even if the page tells no usable address."""
    assert read_script(_page(f'var kimi_ajax = {{"ajax_url":{ajax_url},"nonce":"{NONCE}"}};')) == (NONCE, None)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html><body>Maintenance</body></html>",
        _page("var kimi_ajax;"),
        _page("var kimi_ajax = {};"),
        _page(f'var kimi_ajax = {{"ajax_url":"{ESCAPED_URL}"}};'),
        _page('var kimi_ajax = {"nonce":""};'),
        _page('var kimi_ajax = {"nonce":null};'),
        _page('var kimi_ajax = {"nonce":0};'),
        _page('var kimi_ajax = {"nonce":"-1"};'),
        _page('var kimi_ajax = {"nonce":"not a nonce"};'),
        _page('var kimi_ajax = {"nonce":"0a1b2c3d4e\\r\\nx: y"};'),
        _page(f'var kimi_ajax = {{"nonce":"{"a" * 1000}"}};'),
        _page('var kimi_ajax = {"nonce":["x"]};'),
        _page(f'var kimi_ajax = {{"nonce":"{NONCE}"'),
        _page(f'var kimi_ajax = {{"nonce":"{NONCE}'),
        _page(f"var kimi_ajax = {{nonce: {NONCE}}};"),
        _page(f"var kimi_ajax = {{nonce: kimiNonce, other: '{NONCE}'}};"),
        _page(f"var kimi_ajax = {{nonce: `${{nonce}}{NONCE}`}};"),
        _page(f"var kimi_ajax = {{nonce: salt('{NONCE}')}};"),
        _page(f"var kimi_ajax = {{nonce: ['{NONCE}']}};"),
        _page(f"var kimi_ajax = {{data: {{nonce: '{NONCE}'}}}};"),
        _page(f"var kimi_ajax = {{nonce: '{NONCE}'"),
        _page(f"var kimi_ajax = {{nonce: '{NONCE}"),
        _page(f"if (kimi_ajax == {{nonce: '{NONCE}'}}) {{}}"),
        _page(f"kimi_ajax.other = '{NONCE}'; if (kimi_ajax.nonce == '{NONCE}') {{}}"),
        _page("var kimi_ajax = " + "{a:" * 100_000),
        _page("var kimi_ajax = " + "(" * 100_000),
        _page(f'var kimi_ajax = "{NONCE}";'),
        _page(f'var kimi_ajax2 = {{"nonce":"{NONCE}"}};'),
        _page(f'var other = {{"nonce":"{NONCE}"}};'),
        _page("var kimi_ajax = " + '{"a":' * 100_000),
        _page("var kimi_ajax = {};" * 20 + f"var kimi_ajax = {SCRIPT};"),
        _page('var kimi_ajax = {"nonce":' + "1" * 5000 + "};"),
    ],
)
def test_a_page_without_a_nonce_is_an_error_of_its_own(page: str) -> None:
    """Whatever is missing or broken, it is the error for a missing nonce, and shows nothing of the page."""
    with pytest.raises(NonceMissing) as caught:
        read_script(page)
    assert NONCE not in caught.value.message
    assert "<" not in caught.value.message


@UNTIMED
@given(text=texts, before=texts)
def test_any_text_may_stand_in_the_script(text: str, before: str) -> None:
    """No text in the variable or on the page before it leads the reader astray."""
    values = json.dumps({"hint": text, "ajax_url": AJAX_URL, "nonce": NONCE, "last": text})
    assert read_script(before + _page(f"var kimi_ajax = {values};")) == (NONCE, AJAX_URL)


class _Site(ThreadingHTTPServer):
    """Serves one page, as which it puts its own address in place of `HOST`."""

    daemon_threads = True
    script = ""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Site

    def do_GET(self) -> None:
        body = _page(self.server.script.replace("HOST", f"127.0.0.1:{self.server.server_port}")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Keep still."""


@pytest.fixture
def page_site() -> Iterator[_Site]:
    """A site with a page of the test's choice."""
    with _Site(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="page-site", daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def _ajax_url(page_site: _Site, said: object, configured: str | None = None) -> str:
    """Where messages go if the page says this."""
    page_site.script = f"var kimi_ajax = {json.dumps({'nonce': NONCE, 'ajax_url': said})};"
    reader = PageReader(page_url=f"{page_site.base_url}/chat/", ajax_url=configured, timeout=20)
    clearance = await reader.fetch()
    assert clearance.nonce == NONCE
    assert NONCE not in repr(clearance)
    return clearance.ajax_url


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("http://HOST/blog/wp-admin/admin-ajax.php", "/blog/wp-admin/admin-ajax.php"),
        ("/blog/wp-admin/admin-ajax.php", "/blog/wp-admin/admin-ajax.php"),
        ("//HOST/blog/ajax.php?lang=en", "/blog/ajax.php?lang=en"),
        ("ajax.php", "/chat/ajax.php"),
    ],
)
async def test_the_page_is_trusted_about_its_own_host(page_site: _Site, said: str, path: str) -> None:
    """An address on the host of the page itself is where messages go, relative or not."""
    assert await _ajax_url(page_site, said) == page_site.base_url + path


@pytest.mark.parametrize(
    "said",
    [
        "https://evil.example/wp-admin/admin-ajax.php",
        "//evil.example/wp-admin/admin-ajax.php",
        "http://127.0.0.1:1/wp-admin/admin-ajax.php",
        "http://127.0.0.1/wp-admin/admin-ajax.php",
        "http://HOST@evil.example/ajax.php",
        "http://evil.example#@HOST/ajax.php",
        "http://HOST.evil.example/ajax.php",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "ftp://HOST/ajax.php",
        "https://HOST/ajax.php",
        "http://[broken/ajax.php",
        "",
        None,
        5,
    ],
)
async def test_the_page_is_not_trusted_about_other_hosts(page_site: _Site, said: object) -> None:
    """Any other address, or none, leads to WordPress's usual place on the page's own host."""
    assert await _ajax_url(page_site, said) == f"{page_site.base_url}/wp-admin/admin-ajax.php"


async def test_a_configured_address_wins(page_site: _Site) -> None:
    """What the operator has set is used, whatever the page says."""
    configured = "https://api.example/ajax"
    assert await _ajax_url(page_site, "http://HOST/ajax.php", configured) == configured


def test_true_is_no_nonce() -> None:
    """A boolean where the nonce should be counts as none."""
    with pytest.raises(NonceMissing):
        read_script('var kimi_ajax = {"nonce":true};')
