"""Upstreams and routes on the console, in a browser without scripts."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.storage.database import Database
from app.storage.upstreams import list_upstreams
from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.console import staff
from tests.console.staff import Visit, make_key, signed_in
from tests.live import LiveGateway

database = staff.database
admin = staff.admin
_KEY = "sk-of-an-upstream-b7d1"


@pytest.fixture
def keeper(
    start_gateway: StartGateway, database: Database, tmp_path: Path, site: LiveSimulator
) -> Iterator[LiveGateway]:
    """A gateway that can keep secrets, beside an upstream that opens to one key."""
    site.site.update(api_key=_KEY)
    url = f"sqlite:///{tmp_path}/gateway.db"
    with start_gateway(database_url=url, journal_dir=tmp_path / "journal", secret_key="s" * 32) as gateway:
        yield gateway


def _plain(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def _ask(gateway: LiveGateway, secret: str, model: str) -> tuple[int, str | None]:
    with gateway.client(secret) as client:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        response = client.post("/v1/chat/completions", json=body)
        return response.status_code, response.headers.get("x-provider")


def test_an_upstream_is_tried_added_changed_and_removed(
    keeper: LiveGateway, database: Database, admin: Visit, site: LiveSimulator
) -> None:
    """With a form whose command lines say the same; its key is on no page, and a trial saves nothing."""
    key = make_key(database).secret
    form = {"name": "gpu", "base_url": site.api_url, "models": "mine=qwen3, other", "more": '{"timeout": 30}'}
    tried = admin.send("/upstreams", 200, **form, key=_KEY, do="test")
    assert "can be reached · mine, other · Nothing was saved." in _plain(tried)
    assert f"upstreams add gpu --base-url {site.api_url} --models 'mine=qwen3, other'" in _plain(tried)
    assert "upstream_key_rejected" in admin.send("/upstreams", 200, **form, key="sk-wrong-key", do="test")
    assert "/console/upstreams/gpu" not in tried
    added = admin.send("/upstreams", 200, **form, key=_KEY, do="add")
    assert "gpu added here" in _plain(added)
    assert _ask(keeper, key, "mine") == (200, "gpu")
    page = admin.page("/upstreams/gpu")
    assert 'name="models" value="mine=qwen3, other"' in page
    assert "{&#34;timeout&#34;: 30.0}" in page
    assert _KEY not in tried + added + page + admin.page("/audit")
    # What is left out goes, the key stays.
    admin.send("/upstreams/gpu", base_url=site.api_url, any_model="1", do="save")
    assert _ask(keeper, key, "gpu/anything") == (200, "gpu")
    assert _ask(keeper, key, "mine")[0] == 404
    assert "given for another address" in admin.send("/upstreams/gpu", 400, base_url="http://127.0.0.1:9", do="save")
    assert "given for another address" in admin.send("/upstreams/gpu", 400, base_url="http://127.0.0.1:9", do="test")
    assert "can be reached" in admin.send("/upstreams/gpu", base_url=site.api_url, do="test")
    admin.send("/upstreams/gpu", do="disable")
    assert "✕ disabled" in _plain(admin.page("/upstreams")).lower()
    assert _ask(keeper, key, "gpu/anything")[0] == 404
    admin.send("/upstreams/gpu", do="enable")
    assert _ask(keeper, key, "gpu/anything")[0] == 200
    assert "/console/upstreams/gpu" not in admin.send("/upstreams/gpu", do="remove")
    admin.page("/upstreams/gpu", 404)


def test_what_is_taken_out_of_further_fields_is_gone(database: Database, admin: Visit) -> None:
    """Within objects, too, however deep; a secret header, which isn't in the form, stays."""
    form = {"base_url": "http://127.0.0.1:9", "models": "qwen3"}
    bounds = {"option_bounds": {"temperature": [0, 1], "top_p": [0, 1]}}
    nested = {"breaker": {"failure_rate": 0.5, "minimum_calls": 7}, **bounds, "headers": {"X-Team": "blue"}}
    admin.send("/upstreams", 200, name="gpu", **form, more=json.dumps(nested), do="add")

    def kept(**more: object) -> dict[str, Any]:
        admin.send("/upstreams/gpu", 200, **form, more=json.dumps(more), do="save")
        with database.transaction() as connection:
            (stored,) = list_upstreams(connection)
        assert stored.secrets is not None
        return {name: value for name, value in stored.entry.items() if name in nested}

    breaker, one_bound = {"minimum_calls": 7}, {"temperature": [0.0, 1.0]}
    assert kept(breaker=breaker, option_bounds=one_bound) == {"breaker": breaker, "option_bounds": one_bound}
    assert kept(breaker=breaker, option_bounds={}) == {"breaker": breaker, "option_bounds": {}}
    assert kept() == {}
    assert "headers.X-Team" in admin.page("/upstreams/gpu")


def test_an_upstream_may_have_another_form_of_api(admin: Visit, site: LiveSimulator) -> None:
    """The form has a field for it, and the key goes where that form wants it."""
    site.site.update(api_key=_KEY)
    form = {"name": "see", "kind": "anthropic", "base_url": site.api_url, "models": "m", "key": _KEY}
    tried = admin.send("/upstreams", 200, **form, do="test")
    assert "can be reached" in tried
    assert f"upstreams add see --kind anthropic --base-url {site.api_url}" in _plain(tried)
    assert "<option selected>anthropic</option>" in tried


def test_upstreams_change_places(admin: Visit) -> None:
    """One that goes up comes before the one that was before it."""

    def order() -> list[str]:
        return re.findall(r'href="/console/upstreams/([a-z-]+)"', admin.page("/upstreams"))

    for name in ("a", "b"):
        admin.send("/upstreams", name=name, base_url="http://127.0.0.1:9", do="add")
    admin.send("/upstreams/b", do="up")
    assert order() == ["kimi-web", "b", "a"]
    admin.send("/upstreams/b", do="down")
    assert order() == ["kimi-web", "a", "b"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"name": "GPU", "base_url": "http://127.0.0.1:9"}, "Name: up to 32 lower-case letters"),
        ({"name": "gpu"}, "Address is missing"),
        ({"name": "gpu", "base_url": "http://127.0.0.1:9", "more": "{"}, "Further fields: "),
        ({"name": "gpu", "base_url": "http://127.0.0.1:9", "more": "[]"}, "Further fields: write an object"),
        ({"name": "gpu", "base_url": "http://127.0.0.1:9", "models": "=x"}, "Models: write names of models"),
        ({"name": "kimi-web", "base_url": "http://127.0.0.1:9"}, "in the settings already"),
    ],
)
def test_what_is_wrong_with_an_upstream_is_said_above_its_form(
    admin: Visit, form: dict[str, str], message: str
) -> None:
    """With the labels that the form has. What was typed stays, but for the key."""
    page = admin.send("/upstreams", 400, **form, key=_KEY, do="add")
    assert message in html.unescape(page)
    assert f'name="name" value="{form["name"]}"' in page
    assert _KEY not in page


def test_routes_are_set_tried_and_removed(keeper: LiveGateway, database: Database, admin: Visit) -> None:
    """The page says who would answer, and with which key nobody would; viewers may look and change nothing."""
    key = make_key(database, models=["gpt*"])
    admin.send("/upstreams", name="gpu", base_url="http://127.0.0.1:9", models="qwen3", do="add")
    page = admin.send("/routes", route="kimi", targets="gpu/qwen3 > kimi-k2-instruct", do="set")
    assert "gpu/qwen3 → kimi-web/kimi-k2-instruct" in _plain(page)
    answer = _plain(admin.page("/upstreams", model="kimi"))
    assert "gpu/qwen3 ● ready" in answer
    assert "asked in this order" in answer
    assert "does not exist" in admin.page("/upstreams", model="kimi", key=key.key.id)
    assert "There is no key" in admin.page("/upstreams", 400, model="kimi", key="k_nobody")
    admin.send("/routes", route="a/b c", targets="qwen3*2 | kimi*1", do="set")
    assert "by the weights" in admin.page("/upstreams", model="a/b c")
    assert "no provider serves" in admin.send("/routes", 400, route="x", targets="nowhere", do="set")
    assert "These routes lead to it" in admin.send("/upstreams/gpu", 400, do="remove")
    with signed_in(keeper, database, name="vera", role="viewer") as viewer:
        seen = viewer.page("/upstreams", model="kimi") + viewer.page("/upstreams/gpu")
        assert 'action="/console/routes"' not in seen
        assert 'name="base_url"' not in seen
    admin.send("/routes", route="a/b c", do="remove")
    assert "a/b c" not in _plain(admin.send("/routes", route="kimi", do="remove"))
