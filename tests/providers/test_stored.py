"""Upstreams and routes in the database: what they may be, how they are changed, and what becomes of their secrets."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import text

from app.assembly.database import catalog_of
from app.assembly.providers import build_providers
from app.providers.entries import ProvidersFileError, read_providers_file
from app.providers.stored import NotStored, Opened, UpstreamAdministration, UpstreamFault
from app.settings import load_settings
from app.storage.audit import Actor, actions_before
from app.storage.database import Database
from app.storage.schema import migrate
from app.storage.tables import metadata
from app.storage.upstreams import list_routes
from tests import databases

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database

KEY, TOKEN, NEXT_KEY = "sk-upstream-9e1f02", "token-5b77aa", "sk-upstream-2d40c3"
SECRET, NEXT_SECRET = "s" * 32, "n" * 44
ME = Actor("tester", "cli")
GPU = {"name": "gpu", "base_url": "http://127.0.0.1:9/v1", "models": ["qwen3-32b"]}


def administration(database: Database, **settings: Any) -> UpstreamAdministration:
    """What changes upstreams in a database, beside a gateway with some settings."""
    values = {"auth_disabled": True, "secret_key": SECRET, "model_routes": "fast=kimi-k2-instruct", **settings}
    loaded = load_settings(_env_file=None, **values)
    return UpstreamAdministration(database, catalog_of(loaded, build_providers(loaded)))


class Book:
    """The upstreams of a database, each change a transaction of its own."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.administration = administration(database, **settings)

    def do(self, what: str, *arguments: Any, **named: Any) -> Any:
        """One change."""
        with self.database.transaction() as connection:
            return getattr(self.administration, what)(connection, ME, *arguments, **named)

    def all(self) -> list[Opened]:
        """All upstreams."""
        with self.database.transaction(reads=True) as connection:
            return self.administration.upstreams(connection)

    def names(self) -> list[str]:
        """Their names."""
        return [one.stored.name for one in self.all()]

    def audit(self) -> list[dict[str, Any]]:
        """The log of changes, the oldest first."""
        with self.database.transaction(reads=True) as connection:
            return actions_before(connection, None)[::-1]

    def everything(self) -> str:
        """All that the database holds."""
        with self.database.transaction(reads=True) as connection:
            return "".join(
                str(connection.execute(text(f"SELECT * FROM {table.name}")).all()) for table in metadata.sorted_tables
            )


@pytest.fixture
def book(database: Database) -> Book:
    """A database of each kind, without upstreams."""
    return Book(database)


@pytest.fixture
def sqlite_book(tmp_path: Any) -> Any:
    """For what doesn't depend on the kind of database."""
    database = Database(f"sqlite:///{tmp_path}/gateway.db", timeout=5)
    migrate(database)
    yield Book(database)
    database.close()


def test_an_upstream_is_added_changed_and_removed(book: Book) -> None:
    """Each change is there at once, and in the log of changes with what differs."""
    book.do("add", GPU)
    changed = book.do("change", "gpu", {"timeout": 30, "models": None, "discover": True, "enabled": False})
    assert changed.entry is not None
    assert (changed.entry.timeout, changed.entry.models, changed.stored.enabled) == (30, None, False)
    (found,) = book.all()
    assert found == changed
    book.do("remove", "gpu")
    assert book.all() == []
    create, update, delete = book.audit()
    assert (create["action"], create["before"]) == ("upstream.create", None)
    assert create["after"] == {**GPU, "models": [{"id": "qwen3-32b"}], "enabled": True, "position": 1}
    assert update["before"] == {"models": [{"id": "qwen3-32b"}], "timeout": None, "discover": None, "enabled": True}
    assert update["after"] == {"models": None, "timeout": 30.0, "discover": True, "enabled": False}
    assert (delete["action"], delete["subject"], delete["after"]) == ("upstream.delete", "upstream:gpu", None)


def test_an_upstream_may_have_several_keys(sqlite_book: Book) -> None:
    """Keys with commas between them are one secret; a list of variables is kept as the text that forms show."""
    sqlite_book.do("add", {**GPU, "key": f"{KEY},{NEXT_KEY}"})
    sqlite_book.do("add", {**GPU, "name": "env", "key_env": ["HOME", "PATH"]})
    several, of_variables = sqlite_book.all()
    assert several.secrets == ["key"]
    assert KEY not in sqlite_book.everything()
    assert NEXT_KEY not in sqlite_book.everything()
    assert of_variables.stored.entry["key_env"] == "HOME, PATH"
    assert several.entry is not None
    assert of_variables.entry is not None
    for entry in (several.entry, of_variables.entry):
        assert sqlite_book.administration.catalog.provider(entry).status().ready


@pytest.mark.parametrize("entry", [{"key_env": "SECRET_KEY"}, {"headers": {"X-A": {"env": "API_MASTER_KEY"}}}])
def test_no_secret_of_the_gateway_is_sent_to_an_upstream(sqlite_book: Book, entry: dict[str, Any]) -> None:
    """Whoever may add upstreams could have it sent anywhere."""
    with pytest.raises(UpstreamFault, match="a setting of the gateway"):
        sqlite_book.do("add", {**GPU, **entry})


def test_what_is_secret_is_stored_encrypted_and_told_nowhere(book: Book) -> None:
    """Neither the key nor what headers say stands in any table, and both come back with SECRET_KEY."""
    headers = {"X-Token": TOKEN, "X-Home": {"env": "HOME"}}
    book.do("add", {**GPU, "key": KEY, "headers": headers})
    book.do("change", "gpu", {"timeout": 30})
    (found,) = book.all()
    assert found.entry is not None
    assert found.entry.key is not None
    assert found.entry.key.get_secret_value() == KEY
    assert found.entry.headers["X-Token"] == TOKEN
    assert found.stored.entry["headers"] == {"X-Home": {"env": "HOME"}}
    assert found.secrets == ["key", "headers.X-Token"]
    book.do("change", "gpu", {"key": NEXT_KEY})
    assert book.audit()[-1]["after"] == {"secrets": ["key: changed", "headers.X-Token: changed"]}
    stored = book.everything()
    assert [secret for secret in (KEY, NEXT_KEY, TOKEN, SECRET) if secret in stored] == []
    assert KEY not in repr(found)


def test_the_secret_key_is_changed_without_losing_anything(sqlite_book: Book) -> None:
    """With the new one in front of the old one all is read; encrypted anew, the old one may go."""
    book, database = sqlite_book, sqlite_book.database
    book.do("add", {**GPU, "key": KEY})
    both = Book(database, secret_key=f"{NEXT_SECRET},{SECRET}")
    new = Book(database, secret_key=NEXT_SECRET)
    assert (new.all()[0].entry, new.all()[0].fault) == (None, "its key was encrypted with another SECRET_KEY")
    with pytest.raises(UpstreamFault, match="would lose its key"):
        new.do("change", "gpu", {"timeout": 30})
    assert new.do("change", "gpu", {"enabled": False}).stored.secrets is not None
    assert both.do("seal_anew") == 1
    (found,) = new.all()
    assert found.entry is not None
    assert found.entry.key is not None
    assert found.entry.key.get_secret_value() == KEY
    assert book.all()[0].entry is None


def test_without_secret_key_nothing_secret_is_stored(sqlite_book: Book) -> None:
    """It is said what to set; upstreams without secrets are stored, and those with `key_env`."""
    book = Book(sqlite_book.database, secret_key="")
    for secret in ({"key": KEY}, {"headers": {"X-Token": TOKEN}}):
        with pytest.raises(UpstreamFault, match="SECRET_KEY is not set") as refused:
            book.do("add", {**GPU, **secret})
        assert refused.value.param in ("key", "headers.X-Token")
    book.do("add", {**GPU, "key_env": "HOME"})
    assert book.names() == ["gpu"]


def test_a_secret_is_sent_to_no_other_address_than_it_was_given_for(sqlite_book: Book) -> None:
    """Whoever moves an upstream gives its secrets again, or takes them away."""
    book = sqlite_book
    book.do("add", {**GPU, "key": KEY})
    elsewhere = {"base_url": "http://127.0.0.2:9/v1"}
    for patch in (elsewhere, {"base_url": None, "preset": "openai"}, {"kind": "anthropic"}):
        with pytest.raises(UpstreamFault, match="given for another address: give key again"):
            book.do("change", "gpu", patch)
    assert book.do("change", "gpu", {**elsewhere, "key": None}).secrets == []


def test_upstreams_are_put_in_order(book: Book) -> None:
    """One that comes to another place moves the others, and a new one comes last."""
    for name in ("a", "b", "c"):
        book.do("add", {**GPU, "name": name})
    book.do("change", "c", {"position": 1})
    assert book.names() == ["c", "a", "b"]
    book.do("change", "c", {"position": 99})
    book.do("change", "a", {"position": 2})
    assert book.names() == ["b", "a", "c"]
    book.do("add", {**GPU, "name": "d"})
    assert book.names()[-1] == "d"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "GPU"}, "name"),
        ({"name": "kimi-web"}, "name"),
        ({"base_url": "127.0.0.1"}, "base_url"),
        ({"models": [{"id": "a", "size": 3}]}, "models[0].size"),
        ({"headers": {"Host": "x"}}, "headers"),
        ({"key_env": "NOT_SET_ANYWHERE"}, "key_env"),
        ({"key": KEY, "key_env": "HOME"}, ""),
        ({"key": "\N{GREEK SMALL LETTER ALPHA}"}, "key"),
        ({"key": f"{KEY},\N{GREEK SMALL LETTER ALPHA}"}, "key"),
        ({"key": " , "}, "key"),
        ({"key_env": ["HOME", "NOT_SET_ANYWHERE"]}, "key_env"),
        ({"preset": "nobody"}, "preset"),
        ({"option_bounds": {"temperature": [2, 1]}}, "option_bounds.temperature"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_the_file_refuses_is_refused_in_the_same_words(
    sqlite_book: Book, tmp_path: Any, fields: Mapping[str, Any], param: str
) -> None:
    """With the field at fault, and nothing is stored."""
    with pytest.raises(UpstreamFault) as refused:
        sqlite_book.do("add", {**GPU, **fields})
    assert refused.value.param == param
    assert sqlite_book.names() == []
    if "base_url" in fields:
        file = tmp_path / "providers.toml"
        file.write_text('[[providers]]\nname = "gpu"\nbase_url = "127.0.0.1"\n', "utf-8")
        with pytest.raises(ProvidersFileError) as of_file:
            read_providers_file(file)
        assert str(of_file.value).endswith(f".{refused.value}")


def test_names_are_taken_once(sqlite_book: Book) -> None:
    """What the settings name can be neither added nor changed nor removed."""
    book = sqlite_book
    book.do("add", GPU)
    for what, *arguments in (
        ("add", GPU),
        ("set_route", "fast", ["gpu/qwen3-32b"]),
        ("change", "gpu", {"name": "gpu2"}),
    ):
        with pytest.raises(UpstreamFault):
            book.do(str(what), *arguments)
    for what, *rest in (
        ("change", "kimi-web", {"enabled": False}),
        ("remove", "kimi-web"),
        ("remove_route", "fast"),
        ("remove", "nobody"),
        ("remove_route", "nobody"),
    ):
        with pytest.raises(NotStored):
            book.do(str(what), *rest)


def test_routes_are_set_and_removed(book: Book) -> None:
    """In order or with weights; they come back as they were given."""
    book.do("add", GPU)
    book.do("set_route", "kimi", ["gpu/qwen3-32b", "kimi-k2-instruct"])
    book.do("set_route", "shared", {"qwen3-32b": 3, "kimi": 1})
    book.do("set_route", "kimi", ["kimi-k2-instruct", "gpu/qwen3-32b"])
    with book.database.transaction(reads=True) as connection:
        found = {route.name: route.targets for route in list_routes(connection)}
    assert found == {"kimi": ["kimi-k2-instruct", "gpu/qwen3-32b"], "shared": {"qwen3-32b": 3, "kimi": 1}}
    with pytest.raises(UpstreamFault, match="These routes lead to it: kimi"):
        book.do("remove", "gpu")
    book.do("remove_route", "kimi")
    book.do("remove", "gpu")
    assert [one["action"] for one in book.audit()][1:] == [
        *("route.set", "route.set", "route.set", "route.delete", "upstream.delete")
    ]


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("a", ["nowhere"], "leads to 'nowhere', which no provider serves"),
        ("a", [], "1 to 100 targets"),
        ("a", [""], "1 to 100 targets"),
        ("a", ["qwen3-32b", "qwen3-32b"], "twice"),
        ("a", {"qwen3-32b": 0}, "above 0"),
        ("", ["qwen3-32b"], "A route's name"),
        ("b", ["there"], "in a circle: b → there → b"),
        ("kimi-k2-instruct", ["fast"], "in a circle"),
    ],
)
def test_a_route_that_can_t_work_is_refused(sqlite_book: Book, name: str, targets: Any, message: str) -> None:
    """With the reason; what a disabled upstream serves may be a target."""
    book = sqlite_book
    book.do("add", GPU)
    book.do("set_route", "b", ["qwen3-32b"])
    book.do("set_route", "there", ["b"])
    with pytest.raises(UpstreamFault, match=message):
        book.do("set_route", name, targets)
    book.do("change", "gpu", {"enabled": False})
    book.do("set_route", "b", ["gpu/qwen3-32b"])
