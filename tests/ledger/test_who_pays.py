"""Who pays what: the table in docs/keys.md, row by row, through the whole stack and read from the database.

A row of the ledger is compared as (outcome, status, tokens in, tokens out, cached, estimated); `requests` is what the
key's holder is told by `GET /v1/key`.
"""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.wire.addresses import GENERATE
from app.domain.tokens import estimate
from app.keys.administration import NewSecret, create_key, pause_key, revoke_key
from app.observe.loop_lag import LoopLag
from app.storage.clock import now
from app.storage.database import Database
from app.storage.prices import Price, set_prices
from app.storage.request_pages import RowFilter, page_of_rows
from app.storage.schema import migrate
from app.storage.usage import usage_by
from simulator.live import LiveSimulator
from tests import databases
from tests.addresses import address
from tests.conftest import StartGateway
from tests.ledger.upstream import answers, upstream_in_thread
from tests.live import ALICE_KEY, WAIT_SECONDS, LiveGateway, until
from tests.providers.openai_compatible.upstream import DONE, RawUpstream, chunked, delta, event, reply, stream
from tests.storage.calls import rows_of

shared_postgres = databases.shared_postgres

_PATIENCE = 30.0
_SAID = [{"role": "user", "content": "Hello"}]
# By their names in the ledger.
_PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"messages": _SAID}),
    "completions": ("/v1/completions", {"prompt": "Hello"}),
    "responses": ("/v1/responses", {"input": "Hello"}),
    "anthropic": ("/v1/messages", {"messages": _SAID, "max_tokens": 1000}),
    "gemini": (GENERATE, {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}),
}
_PROVIDERS = """
[[providers]]
name = "up"
base_url = "{up}"
models = [{{ id = "m", abilities = ["tools"] }}, {{ id = "plain", abilities = [] }}]
concurrency = {concurrency}
queue = 0
breaker = {{ minimum_calls = {minimum_calls} }}
[[providers]]
name = "other"
base_url = "{other}"
models = ["m"]
"""
_WORDS = "Rain on the roof, and nothing else to be heard tonight."
_USAGE: dict[str, Any] = {"prompt_tokens": 70, "completion_tokens": 30}
_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"where"'}}
_TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
_FORM = {"type": "json_schema", "json_schema": {"name": "town", "schema": {"type": "object", "required": ["name"]}}}
_IMAGE = "image_generation.completed"
_BAD_GATEWAY = reply({"error": {"message": "Broken."}}, "502 Bad Gateway")
_NOTHING = (0, 0, 0, 0)
# They have no codes of their own for what is wrong with a field; those are OpenAI's alone.
_WITHOUT_CODES = ("anthropic", "gemini")

EACH_DIALECT = pytest.mark.parametrize("dialect", list(_PATHS))
WHOLE_AND_STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


class Books:
    """A gateway with two scripted upstreams and one key, and what is in its ledger.

    Args:
        gateway: The gateway.
        database: Its database.
        up: The upstream `up`.
        other: The upstream `other`, which stands behind it in the route `r`.
        key: The key.
    """

    def __init__(
        self, gateway: LiveGateway, database: Database, up: RawUpstream, other: RawUpstream, key: NewSecret
    ) -> None:
        self.gateway = gateway
        self.database = database
        self.up = up
        self.other = other
        self.key = key
        self.client = gateway.client(key.secret)

    def ask(
        self, dialect: str = "openai", *, streamed: bool = False, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Call, and read the answer to its end, or to where it breaks off."""
        path, body = _PATHS[dialect]
        asked = {**body, "model": "up/m", "stream": streamed, **fields}
        return self.client.post(address(path, asked["model"], stream=streamed), json=asked, headers=headers)

    def rows(self, number: int) -> list[dict[str, Any]]:
        """So many rows, as soon as they are there; the oldest first."""
        return rows_of(self.database, number)

    def row(self) -> dict[str, Any]:
        """The only one."""
        return self.rows(1)[0]

    @property
    def requests(self) -> int:
        """How many requests the holder of the key is told of."""

        def told() -> dict[str, Any]:
            answer = self.client.get("/v1/key")
            # A disk that stands still for two seconds makes the database count as away, rightly.
            return {} if answer.status_code == 503 else answer.json()["usage"]["total"]

        return int(until(told)["requests"])


def paid(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row charges: tokens in, out, cached; whether they are estimated."""
    return row["tokens_in"], row["tokens_out"], row["tokens_cached"], row["estimated"]


def ended(row: dict[str, Any]) -> tuple[str, int, str | None]:
    """How its call ended."""
    return row["outcome"], row["status"], row["error"]


def said(*, streamed: bool, usage: object = None, text: str = _WORDS, **message: Any) -> list[bytes]:
    """A whole answer of an upstream, or one in pieces."""
    counted = {} if usage is None else {"usage": usage}
    if not streamed:
        choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
        return reply({"choices": [choice], **counted})
    words = [delta(content=word + " ") for word in text.split()]
    ending = [event({"choices": [], **counted})] if counted else []
    return stream(*([delta(**message)] if message else []), *words, delta("stop"), *ending, DONE)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An SQLite file, unless a test asks for PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return databases.ready_file(tmp_path / "gateway.db")
    server: databases.PostgresServer = request.getfixturevalue("shared_postgres")
    return server.new_ready_database()


@pytest.fixture
def limits() -> dict[str, int]:
    """Those of the upstream `up`."""
    return {"concurrency": 100, "minimum_calls": 1000}


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those that a test wants to be different."""
    return {}


@pytest.fixture
def books(
    start_gateway: StartGateway, database_url: str, tmp_path: Path, limits: dict[str, int], settings: dict[str, Any]
) -> Iterator[Books]:
    """A gateway whose calls are in a ledger."""
    database = Database(database_url, timeout=5)
    migrate(database)
    file = tmp_path / "providers.toml"
    with upstream_in_thread() as up, upstream_in_thread() as other:
        file.write_text(_PROVIDERS.format(up=up.base_url, other=other.base_url, **limits))
        options = {"max_retries": 0, "model_routes": "r=up/m>other/m", **settings}
        with start_gateway(
            database_url=database_url, journal_dir=tmp_path / "journal", providers_file=str(file), **options
        ) as gateway:
            with database.transaction() as connection:
                key = create_key(connection, name="ada", project="lab")
            found = Books(gateway, database, up, other, key)
            with found.client:
                yield found
    database.close()


# Completed.


@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_a_completed_call_is_paid_as_the_upstream_reports(books: Books, dialect: str, streamed: bool) -> None:
    """With what came from the cache, and what was thought; of a stream the count comes behind the reason it ended."""
    usage = {
        "prompt_tokens": 70,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 50},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    answers(books.up, said(streamed=streamed, usage=usage, reasoning_content="Hm."))
    assert books.ask(dialect, streamed=streamed).status_code == 200
    row = books.row()
    assert ended(row) == ("completed", 200, None)
    assert paid(row) == (70, 30, 50, 0)
    assert (row["dialect"], row["streamed"], row["key_id"]) == (dialect, int(streamed), books.key.key.id)
    assert books.requests == 1


@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_what_the_upstream_does_not_count_is_estimated_and_marked(books: Books, dialect: str, streamed: bool) -> None:
    """Prompt and answer, thoughts included."""
    answers(books.up, said(streamed=streamed, reasoning_content="Hm, rain."))
    assert books.ask(dialect, streamed=streamed).status_code == 200
    row = books.row()
    assert ended(row) == ("completed", 200, None)
    assert row["estimated"] == 1
    assert row["tokens_in"] > 0
    assert abs(row["tokens_out"] - estimate(_WORDS + "Hm, rain.")) <= 2


@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        pytest.param({"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}, (70, 30, 0, 0), id="plain"),
        pytest.param({"prompt_tokens": "70", "completion_tokens": 30.4}, (70, 30, 0, 0), id="text-and-float"),
        pytest.param({"prompt_tokens": 70, "completion_tokens": 30, "cached_tokens": 900}, (70, 30, 70, 0),
                     id="more-cached-than-there-was"),
        pytest.param({"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 120,
                      "completion_tokens_details": {"reasoning_tokens": 20}}, (70, 50, 0, 0), id="thought-beside"),
        pytest.param({"prompt_tokens": 70, "completion_tokens": None}, (70, None, 0, 1), id="half-null"),
        pytest.param({"prompt_tokens": 70, "completion_tokens": -5}, (70, None, 0, 1), id="half-negative"),
        pytest.param({"prompt_tokens": 70, "completion_tokens": 0}, (70, None, 0, 1), id="no-words-in-words"),
        pytest.param({"prompt_tokens": 0, "completion_tokens": 30}, (None, 30, 0, 1), id="no-prompt"),
        pytest.param({"prompt_tokens": -7, "completion_tokens": -3}, (None, None, 0, 1), id="negative"),
        pytest.param({"prompt_tokens": 10**15, "completion_tokens": 10**300}, (None, None, 0, 1), id="huge"),
        pytest.param({"prompt_tokens": "many", "completion_tokens": []}, (None, None, 0, 1), id="no-numbers"),
        pytest.param({"prompt_tokens": True, "completion_tokens": "NaN"}, (None, None, 0, 1), id="no-numbers-either"),
        pytest.param([70, 30], (None, None, 0, 1), id="a-list"),
        pytest.param("70", (None, None, 0, 1), id="a-text"),
        pytest.param({}, (None, None, 0, 1), id="empty"),
    ],
)  # fmt: skip
def test_an_absurd_count_is_not_believed(
    books: Books, usage: object, charged: tuple[int | None, int | None, int, int], streamed: bool
) -> None:
    """Where it can't be true the gateway estimates, and says so. No call is free, none costs less than nothing."""
    answers(books.up, said(streamed=streamed), said(streamed=streamed, usage=usage))
    for _ in range(2):
        assert books.ask(streamed=streamed).status_code == 200
    guess, row = books.rows(2)
    tokens_in, tokens_out, cached, estimated = charged
    assert paid(row) == (
        guess["tokens_in"] if tokens_in is None else tokens_in,
        guess["tokens_out"] if tokens_out is None else tokens_out,
        cached,
        estimated,
    )


@WHOLE_AND_STREAMED
def test_several_answers_to_one_request_are_all_paid(books: Books, streamed: bool) -> None:
    """With `n`, once the prompt, and each answer: as counted, and where nobody counted, by their words."""
    texts = [_WORDS, "Snow."]
    if streamed:
        pieces = [
            event({"choices": [{"index": place, "delta": {"content": text}, "finish_reason": "stop"}]})
            for place, text in enumerate(texts)
        ]
        counted, plain = stream(*pieces, event({"choices": [], "usage": _USAGE}), DONE), stream(*pieces, DONE)
    else:
        choices = [
            {"index": place, "message": {"content": text}, "finish_reason": "stop"} for place, text in enumerate(texts)
        ]
        counted, plain = reply({"choices": choices, "usage": _USAGE}), reply({"choices": choices})
    answers(books.up, counted, plain)
    for _ in range(2):
        assert books.ask(streamed=streamed, n=2).status_code == 200
    first, second = books.rows(2)
    assert paid(first) == (70, 30, 0, 0)
    assert second["tokens_out"] == estimate("".join(texts))
    assert books.requests == 2


def test_cached_input_is_in_tokens_in_and_has_a_price_of_its_own(books: Books) -> None:
    """70 tokens of which 50 came from the cache are 20 at one price and 50 at the other."""
    with books.database.transaction() as connection:
        set_prices(books.database, connection, [Price("up/m", 0, 1000, 3000, 100)])
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 50}}
    answers(books.up, said(streamed=False, usage=usage))
    books.ask()
    row = books.row()
    assert row["cost"] == 20 * 1000 + 50 * 100 + 30 * 3000


def test_what_came_from_a_cache_was_not_written_into_it(books: Books) -> None:
    """Who counts the same tokens as both is believed in the first: else a call could cost less than nothing."""
    with books.database.transaction() as connection:
        set_prices(books.database, connection, [Price("up/m", 0, 1000, 10, 100, cache_write=0)])
    usage = {
        "prompt_tokens": 70,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 60},
        "cache_creation_input_tokens": 70,
    }
    answers(books.up, said(streamed=False, usage=usage))
    books.ask()
    row = books.row()
    assert (row["tokens_cache_written"], row["cost"]) == (10, 60 * 100 + 10 * 0 + 30 * 10)


# Answered without an upstream.


@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_a_request_that_is_sent_again_is_free(books: Books, dialect: str, streamed: bool) -> None:
    """The answer comes from the session: the upstream isn't asked, and no request is counted."""
    answers(books.up, said(streamed=streamed, usage=_USAGE))
    headers = {"X-Session-Id": "s", "Idempotency-Key": "once"}
    assert books.ask(dialect, streamed=streamed, headers=headers).status_code == 200
    again = books.ask(dialect, streamed=streamed, headers=headers)
    assert (again.status_code, again.headers["x-session-action"]) == (200, "replayed")
    first, second = books.rows(2)
    assert paid(first) == (70, 30, 0, 0)
    assert (ended(second), paid(second)) == (("replayed", 200, None), _NOTHING)
    assert books.requests == 1
    with books.database.transaction(reads=True) as connection:
        assert [row["id"] for row in page_of_rows(connection, RowFilter(trouble=True)).rows] == []


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("settings", [{"answer_cache_seconds": 60, "default_limits": "1 requests/hour"}])
def test_an_answer_from_the_cache_costs_nothing(books: Books, streamed: bool) -> None:
    """It is no request, and given also when a limit leaves none."""
    answers(books.up, said(streamed=streamed, usage=_USAGE))
    headers = {"Cache-Control": "max-age=60"}
    told = [books.ask(streamed=streamed, headers=headers) for _ in range(2)]
    assert [(one.status_code, one.headers["x-cache"]) for one in told] == [(200, "MISS"), (200, "HIT")]
    first, second = books.rows(2)
    assert paid(first) == (70, 30, 0, 0)
    assert (ended(second), paid(second)) == (("replayed", 200, None), _NOTHING)
    assert books.requests == 1
    assert books.ask(streamed=streamed).status_code == 429


# Failed upstreams.


@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_an_upstream_that_fails_without_a_word_costs_a_request_and_no_tokens(
    books: Books, dialect: str, streamed: bool
) -> None:
    """It was sent, and nothing came of it."""
    answers(books.up, _BAD_GATEWAY)
    failed = books.ask(dialect, streamed=streamed)
    assert failed.status_code == 503
    row = books.row()
    assert (ended(row), paid(row)) == (("failed", 503, "upstream_unavailable"), _NOTHING)
    assert books.requests == 1


@EACH_DIALECT
def test_an_upstream_that_breaks_off_is_paid_for_what_came(books: Books, dialect: str) -> None:
    """The prompt, and the words until then: neither nothing nor all."""
    words = [delta(content=word + " ") for word in _WORDS.split()]
    answers(books.up, said(streamed=True), chunked(*words[:4]))
    for _ in range(2):
        assert books.ask(dialect, streamed=True).status_code == 200
    whole, row = books.rows(2)
    assert row["outcome"] == "failed"
    assert row["tokens_in"] == whole["tokens_in"]
    assert 0 < row["tokens_out"] == estimate(" ".join(_WORDS.split()[:4]) + " ") < whole["tokens_out"]
    assert row["estimated"] == 1
    assert books.requests == 2


def test_a_tool_call_that_breaks_off_is_paid_too(books: Books) -> None:
    """What is called are words as well."""
    more = [{"index": 0, "function": {"arguments": piece}} for piece in (': "here', " and ", "there")]
    answers(books.up, chunked(delta(tool_calls=[_CALL]), *[delta(tool_calls=[part]) for part in more]))
    books.ask(streamed=True, tools=_TOOLS)
    row = books.row()
    assert row["outcome"] == "failed"
    assert row["tokens_out"] == estimate('look{"where": "here and there')


def test_what_an_upstream_has_counted_before_it_breaks_off_counts(books: Books) -> None:
    """Some tell the tokens with each chunk: nobody has to guess then."""
    chunks = [
        event({"choices": [{"delta": {"content": "word "}}], "usage": {"prompt_tokens": 70, "completion_tokens": at}})
        for at in (40, 80)
    ]
    answers(books.up, chunked(*chunks))
    books.ask(streamed=True)
    row = books.row()
    assert row["outcome"] == "failed"
    assert paid(row) == (70, 80, 0, 0)


@WHOLE_AND_STREAMED
def test_only_the_upstream_that_answers_is_paid(books: Books, streamed: bool) -> None:
    """Those that failed before it are named, and cost nothing, whatever they counted."""
    empty = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}], "usage": _USAGE}
    answers(books.up, reply(empty))
    answers(books.other, said(streamed=streamed, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert books.ask(model="r", streamed=streamed).status_code == 200
    row = books.row()
    assert (row["provider"], row["passed_over"]) == ("other", "up=empty_reply")
    assert paid(row) == (7, 3, 0, 0)
    assert books.requests == 1


# Asked twice.


@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("fields", "good"),
    [
        pytest.param({"response_format": _FORM}, '{"name": "Rome"}', id="json"),
        pytest.param({"tools": _TOOLS, "tool_choice": "required"}, None, id="tools"),
    ],
)
def test_what_has_to_be_asked_for_twice_is_paid_twice(
    books: Books, fields: dict[str, Any], good: str | None, streamed: bool
) -> None:
    """Both prompts and both answers, whether or not the second is of use."""
    counts = [{"prompt_tokens": 70, "completion_tokens": 30}, {"prompt_tokens": 110, "completion_tokens": 5}]
    bad = said(streamed=False, text="I would rather not.", usage=counts[0])
    answers(books.up, bad, said(streamed=False, text=good or "No.", usage=counts[1]))
    asked = books.ask(model="up/plain", streamed=streamed, **fields)
    assert asked.status_code == (502 if good is None else 200), asked.text
    row = books.row()
    assert row["outcome"] == ("failed" if good is None else "completed")
    assert paid(row) == (180, 35, 0, 0)
    assert books.requests == 1


@WHOLE_AND_STREAMED
def test_an_upstream_that_fails_when_it_is_asked_again_is_paid_for_its_first_answer(
    books: Books, streamed: bool
) -> None:
    """Its tokens were used."""
    answers(books.up, said(streamed=False, text="I would rather not.", usage=_USAGE), _BAD_GATEWAY)
    assert books.ask(model="up/plain", streamed=streamed, response_format=_FORM).status_code == 503
    row = books.row()
    assert (row["outcome"], paid(row)) == ("failed", (70, 30, 0, 0))


@WHOLE_AND_STREAMED
def test_an_answer_that_is_cut_at_a_stop_text_is_paid_as_reported(books: Books, streamed: bool) -> None:
    """Where the gateway does the cutting, the upstream has written all of it."""
    answers(books.up, said(streamed=False, usage=_USAGE))
    asked = books.ask(model="up/plain", streamed=streamed, tools=_TOOLS, stop=["roof"])
    assert asked.status_code == 200
    row = books.row()
    assert (row["outcome"], paid(row)) == ("completed", (70, 30, 0, 0))


# Clients that leave.


def _sent(books: Books, dialect: str, headers: dict[str, str] | None = None, **fields: Any) -> socket.socket:
    """A request on a socket of its own."""
    path, body = _PATHS[dialect]
    data = json.dumps({**body, "model": "up/m", **fields}).encode()
    host = urlsplit(books.gateway.base_url)
    connection = socket.create_connection((host.hostname, host.port), timeout=WAIT_SECONDS)
    target = address(path, "up/m", stream=fields.get("stream") is True)
    head = f"POST {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {books.key.secret}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def _read_until(connection: socket.socket, text: bytes) -> None:
    got = b""
    while text not in got:
        part = connection.recv(65536)
        assert part, got
        got += part


@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_a_client_that_leaves_before_the_first_word_pays_a_request_and_no_tokens(
    books: Books, dialect: str, streamed: bool
) -> None:
    """The upstream was asked, and nothing had come."""
    answers(books.up, (), hold=True)
    with _sent(books, dialect, stream=streamed):
        until(lambda: bool(books.up.requests))
    row = books.row()
    assert (ended(row), paid(row)) == (("abandoned", 499, None), _NOTHING)
    assert books.requests == 1


@EACH_DIALECT
def test_a_client_that_leaves_within_the_answer_pays_what_had_come(books: Books, dialect: str) -> None:
    """The prompt, and the words until then: neither nothing nor all."""
    words = [delta(content=word + " ") for word in _WORDS.split()]
    answers(books.up, said(streamed=True))
    assert books.ask(dialect, streamed=True).status_code == 200
    (whole,) = books.rows(1)
    answers(books.up, stream(*words[:4]), hold=True)
    with _sent(books, dialect, stream=True) as connection:
        _read_until(connection, b"roof")
    _, row = books.rows(2)
    assert ended(row) == ("abandoned", 499, None)
    assert row["tokens_in"] == whole["tokens_in"]
    assert 0 < row["tokens_out"] == estimate(" ".join(_WORDS.split()[:4]) + " ") < whole["tokens_out"]
    assert row["estimated"] == 1
    assert books.requests == 2


def test_a_client_that_leaves_behind_an_image_pays_for_it(books: Books) -> None:
    """So do tokens that the upstream has told of: who has got the image doesn't need the end of the answer."""
    images = [{"type": kind, "b64_json": "AAAA"} for kind in ("image_generation.partial_image", _IMAGE)]
    usage = {"input_tokens": 70, "output_tokens": 30, "total_tokens": 100}
    answers(books.other, stream(event(images[0]), event({**images[1], "usage": usage})), hold=True)
    body = {"model": "other/m", "prompt": "a cat", "stream": True}
    with books.client.stream("POST", "/v1/images/generations", json=body) as answer:
        assert next(line for line in answer.iter_lines() if _IMAGE in line)
    row = books.row()
    assert (ended(row), paid(row)) == (("abandoned", 499, None), (70, 30, 0, 0))
    assert (row["unit"], row["amount"]) == ("images", 1)


def test_what_the_upstream_has_reported_to_a_client_that_left_counts_all_the_same(books: Books) -> None:
    """One that counts the prompt before it says a word is believed, though nobody hears the word."""
    first = event({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": {"prompt_tokens": 70}})
    answers(books.up, stream(first, b": so far\n\n"), hold=True)
    with _sent(books, "openai", stream=True):
        until(lambda: books.up.written == 1)
        for _ in range(3):  # by now the gateway has read what has long arrived
            books.client.get("/v1/models")
    row = books.row()
    assert (ended(row), paid(row)) == (("abandoned", 499, None), (70, 0, 0, 0))


@WHOLE_AND_STREAMED
def test_a_client_that_leaves_between_two_askings_pays_the_first(books: Books, streamed: bool) -> None:
    """The upstream has answered once, and its tokens were used."""
    choice = {"message": {"content": "I would rather not."}, "finish_reason": "stop"}
    first = reply({"choices": [choice], "usage": _USAGE}, Connection="close")
    answers(books.up, first, (), hold=True)
    with _sent(books, "openai", model="up/plain", stream=streamed, response_format=_FORM):
        until(lambda: len(books.up.requests) == 2)
    row = books.row()
    assert (ended(row), paid(row)) == (("abandoned", 499, None), (70, 30, 0, 0))


def test_an_answer_that_is_complete_before_its_client_leaves_is_paid_in_full(
    books: Books, site: LiveSimulator, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """The site's answers come whole and are typed out: whoever stops reading has had the site write all of it."""
    text = _WORDS * 8
    site.site.update(reply=text)
    url = books.database.url.render_as_string(hide_password=False)
    slow = start_gateway(database_url=url, journal_dir=tmp_path / "slow", typing_delay_seconds=0.2)
    with slow as gateway:
        books.gateway = gateway
        with _sent(books, "openai", model="kimi", stream=True) as connection:
            _read_until(connection, b"Rain")
        row = books.row()
    assert row["outcome"] == "completed"
    assert row["tokens_out"] == estimate(text)


# Refused by the gateway.


@EACH_DIALECT
@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("fields", "status", "code", "model"),
    [
        ({"temperature": "warm"}, 400, "invalid_type", "up/m"),
        ({"model": "nonsense"}, 404, "model_not_found", "nonsense"),
        ({"model": "up/m", "X-Session-Id": "x" * 300}, 400, "invalid_request_error", "up/m"),
        ({"model": "up/m", "X-Session-Strict": "1", "X-Session-Id": "none"}, 404, "session_not_found", "up/m"),
        ({"model": "up/m", "X-Provider": "nobody"}, 400, "invalid_request_error", "up/m"),
    ],
    ids=["malformed", "unknown-model", "long-session-id", "unknown-session", "unknown-provider"],
)
def test_what_the_gateway_refuses_is_a_row_and_free(
    books: Books, dialect: str, streamed: bool, fields: dict[str, Any], status: int, code: str, model: str
) -> None:
    """With its reason and, as far as it is known, its model; no request is counted, and no upstream asked."""
    headers = {name: value for name, value in fields.items() if name.startswith("X-")}
    body = {name: value for name, value in fields.items() if name not in headers}
    if dialect == "gemini" and "temperature" in body:
        body = {"generationConfig": body}
    refused = books.ask(dialect, streamed=streamed, headers=headers, **body)
    assert refused.status_code == status, refused.text
    row = books.row()
    if dialect in _WITHOUT_CODES and code == "invalid_type":
        code = "invalid_request_error"
    assert (ended(row), paid(row)) == (("refused", status, code), _NOTHING)
    assert (row["key_id"], row["project"], row["dialect"]) == (books.key.key.id, "lab", dialect)
    assert (row["model"], row["streamed"], row["request_id"]) == (model, streamed, refused.headers["x-request-id"])
    assert books.requests == 0
    assert not books.up.requests
    with books.database.transaction(reads=True) as connection:
        by_outcome = usage_by(connection, "outcome", since=0, until=now() + 3_600_000)
    assert [(sums["outcome"], sums["requests"]) for sums in by_outcome] == [("refused", 1)]


@pytest.mark.parametrize("settings", [{"max_body_bytes": 10_000}])
@EACH_DIALECT
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_a_row_and_free(books: Books, dialect: str, announced: bool) -> None:
    """Whether or not it says before how large it is."""
    content = b'{"model": "up/m", "x": "' + b"x" * 20_000 + b'"}'
    path, _ = _PATHS[dialect]
    refused = books.client.post(path, content=content if announced else iter([content[:9000], content[9000:]]))
    assert refused.status_code == 413
    row = books.row()
    assert (ended(row), paid(row)) == (("refused", 413, "request_too_large"), _NOTHING)
    assert (row["key_id"], row["dialect"]) == (books.key.key.id, dialect)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b'{"model": ', {}, 400, "invalid_request_error"),
        (b"[]", {}, 400, "invalid_request_error"),
        (b"\xff\xfe", {}, 400, "invalid_request_error"),
        (
            b'{"model": {"a": 1}, "messages": [{"role": "user", "content": "x"}], "prompt": "x"}',
            {},
            400,
            "invalid_type",
        ),
        (b"{}", {"Content-Encoding": "compress"}, 415, "unsupported_content_encoding"),
        (b"{}", {f"x-{number}": "x" for number in range(200)}, 431, "headers_too_large"),
    ],
    ids=["half", "list", "no-text", "odd-model", "odd-coding", "many-headers"],
)
@EACH_DIALECT
def test_what_cannot_be_read_is_a_row_and_free(
    books: Books, dialect: str, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Without a model, because there is none to be read, unless the address names it."""
    refused = books.client.post(address(_PATHS[dialect][0]), content=content, headers=headers)
    assert refused.status_code == status, refused.text
    row = books.row()
    if dialect in _WITHOUT_CODES and code == "invalid_type":
        code = "invalid_request_error"
    model = "kimi" if dialect == "gemini" else ""
    assert (ended(row), paid(row), row["model"]) == (("refused", status, code), _NOTHING, model)


@pytest.fixture
def late_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways take their event loop to be five seconds late."""

    async def late(self: LoopLag) -> None:
        self.latest = 5.0

    monkeypatch.setattr(LoopLag, "watch", late)


@pytest.mark.usefixtures("late_loop")
@pytest.mark.parametrize("settings", [{"max_loop_lag_seconds": 1}])
@EACH_DIALECT
def test_calls_that_are_shed_under_load_are_rows_and_free(books: Books, dialect: str) -> None:
    """A worker whose event loop is late refuses them at once."""
    assert books.ask(dialect).status_code == 503
    row = books.row()
    assert (ended(row), paid(row)) == (("refused", 503, "gateway_overloaded"), _NOTHING)
    assert row["key_id"] == books.key.key.id


@pytest.mark.parametrize("settings", [{"session_lock_wait": 2, "session_lock_ttl": 1}])
@WHOLE_AND_STREAMED
def test_a_session_that_is_busy_is_a_row_and_free(books: Books, streamed: bool) -> None:
    """The call that has the session goes on; the one that waited for it in vain pays nothing."""
    answers(books.up, (), hold=True)
    headers = {"X-Session-Id": "s"}
    with _sent(books, "openai", headers=headers):
        until(lambda: bool(books.up.requests))
        assert books.ask(streamed=streamed, headers=headers).status_code == 409
    busy, left = sorted(books.rows(2), key=lambda row: row["outcome"], reverse=True)
    assert (ended(busy), paid(busy)) == (("refused", 409, "session_busy"), _NOTHING)
    assert left["outcome"] == "abandoned"


@pytest.mark.parametrize("limits", [{"concurrency": 1, "minimum_calls": 1000}])
@EACH_DIALECT
@WHOLE_AND_STREAMED
def test_an_upstream_without_a_free_place_is_a_row_and_free(books: Books, dialect: str, streamed: bool) -> None:
    """Nothing was sent for the call that found the queue full."""
    answers(books.up, (), hold=True)
    with _sent(books, dialect):
        until(lambda: bool(books.up.requests))
        assert books.ask(dialect, streamed=streamed).status_code == 503
    full, left = sorted(books.rows(2), key=lambda row: row["outcome"], reverse=True)
    assert (ended(full), paid(full)) == (("refused", 503, "gateway_overloaded"), _NOTHING)
    assert left["outcome"] == "abandoned"
    assert books.requests == 1


@pytest.mark.parametrize("limits", [{"concurrency": 100, "minimum_calls": 1}])
@WHOLE_AND_STREAMED
def test_while_a_breaker_is_open_calls_are_rows_and_free(books: Books, streamed: bool) -> None:
    """The call that failed was sent and is a request; the one that the breaker stopped was not."""
    answers(books.up, _BAD_GATEWAY)
    assert [books.ask(streamed=streamed).status_code for _ in range(2)] == [503, 503]
    sent, stopped = books.rows(2)
    assert len(books.up.requests) == 1
    assert ended(sent) == ("failed", 503, "upstream_unavailable")
    assert ended(stopped) == ("refused", 503, "upstream_unavailable")
    assert books.requests == 1


@WHOLE_AND_STREAMED
def test_while_an_upstream_has_asked_for_a_pause_calls_are_rows_and_free(books: Books, streamed: bool) -> None:
    """The call that met the limit was sent and is a request; the one that came within the pause was not."""
    answers(books.up, reply({"error": {"message": "Slow down."}}, "429 Too Many Requests", Retry_After="30"))
    assert [books.ask(streamed=streamed).status_code for _ in range(2)] == [429, 429]
    sent, spared = books.rows(2)
    assert len(books.up.requests) == 1
    assert ended(sent) == ("failed", 429, "upstream_rate_limited")
    assert ended(spared) == ("refused", 429, "upstream_rate_limited")
    assert books.requests == 1


def test_a_refusal_after_another_upstream_was_asked_is_a_request(books: Books) -> None:
    """The first was asked and failed; that the second could not be asked makes no refusal of it."""
    answers(books.up, reply({"error": {"message": "Slow down."}}, "429 Too Many Requests", Retry_After="30"))
    answers(books.other, reply({"error": {"message": "Slow down."}}, "429 Too Many Requests", Retry_After="30"))
    assert books.ask(model="other/m").status_code == 429
    assert books.ask(model="r").status_code == 429
    _, row = books.rows(2)
    assert row["outcome"] == "failed"
    assert books.requests == 2


# Keys that don't open.


@EACH_DIALECT
def test_nobody_fills_the_ledger_without_a_key(books: Books, dialect: str) -> None:
    """No key, a made-up one, one with a typo: refused, counted by the metrics, and no row."""
    path, body = _PATHS[dialect]
    typo = books.key.secret[:-1] + ("0" if books.key.secret[-1] != "0" else "1")
    for key in (None, "sk-made-up-0123456789abcdef", typo, "sk-kimi-" + "0" * 38):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = f"{books.gateway.base_url}{path}"
        for content in (json.dumps(body).encode(), b"x" * 10, b"x" * 1_100_000):
            assert httpx.post(url, content=content, headers=headers, trust_env=False).status_code == 401
    answers(books.up, said(streamed=False, usage=_USAGE))
    assert books.ask(dialect).status_code == 200
    assert books.row()["outcome"] == "completed"


@pytest.mark.parametrize(("change", "code"), [(pause_key, "key_paused"), (revoke_key, "key_revoked")])
def test_a_key_that_no_longer_opens_is_a_row_once_in_a_while(
    books: Books, change: Callable[..., object], code: str
) -> None:
    """Its owner sees that it is still in use; whoever has it can't fill the ledger with it."""
    with books.database.transaction() as connection:
        change(books.database, connection, books.key.key)
    for dialect in _PATHS:
        for _ in range(5):
            assert books.ask(dialect).status_code == 401
    with books.database.transaction() as connection:
        other = create_key(connection, name="bob")
    with books.gateway.client(other.secret) as client:
        assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 400
    first, last = books.rows(2)
    assert (ended(first), paid(first)) == (("refused", 401, code), _NOTHING)
    assert first["key_id"] == books.key.key.id
    assert last["key_id"] == other.key.id


@EACH_DIALECT
def test_a_key_that_may_not_chat_is_a_row_and_free(books: Books, dialect: str) -> None:
    """It opens, but not this."""
    with books.database.transaction() as connection:
        reader = create_key(connection, name="prometheus", scopes=["metrics"])
    with books.gateway.client(reader.secret) as client:
        path, body = _PATHS[dialect]
        assert client.post(path, json=body).status_code == 403
    row = books.row()
    assert (ended(row), paid(row)) == (("refused", 403, "missing_scope"), _NOTHING)
    assert (row["key_id"], row["dialect"]) == (reader.key.id, dialect)


# What is no call.


def test_what_is_no_call_is_no_row(books: Books) -> None:
    """Counting tokens, lists, sessions, the key's own page, pages for browsers, and addresses that don't exist."""
    messages = {"model": "kimi", "messages": _SAID}
    for method, path, body in (
        ("POST", "/v1/messages/count_tokens", messages),
        ("POST", "/v1/messages/count_tokens", {}),
        ("POST", "/v1/responses/input_tokens", {"model": "kimi", "input": "Hello"}),
        ("POST", "/v1beta/models/kimi:countTokens", {}),
        ("POST", "/v1beta/models/kimi:countTokens", _PATHS["gemini"][1]),
        ("POST", "/v1beta/models/kimi:predict", _PATHS["gemini"][1]),
        ("GET", "/v1beta/models", None),
        ("GET", "/v1beta/models/none", None),
        ("GET", "/v1/responses/resp_none", None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/none", None),
        ("GET", "/v1/sessions", None),
        ("DELETE", "/v1/sessions/none", None),
        ("GET", "/v1/key", None),
        ("GET", "/metrics", None),
        ("GET", "/docs", None),
        ("GET", "/v1/chat/completions", None),
        ("OPTIONS", "/v1/chat/completions", None),
        ("POST", "/v1/files", messages),
    ):
        books.client.request(method, path, json=body)
    answers(books.up, said(streamed=False, usage=_USAGE))
    assert books.ask().status_code == 200
    assert books.row()["outcome"] == "completed"


# On either database.


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_the_table_holds_on_either_database(books: Books) -> None:
    """Completed, cached, replayed, failed, broken off and refused calls: rows, requests and money."""
    with books.database.transaction() as connection:
        set_prices(books.database, connection, [Price("up/m", 0, 1000, 3000, 100)])
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 50}}
    headers = {"X-Session-Id": "s", "Idempotency-Key": "once"}
    broken = chunked(*[delta(content=word + " ") for word in _WORDS.split()[:4]])
    answers(books.up, said(streamed=False, usage=usage), _BAD_GATEWAY, broken)
    statuses = [
        books.ask(headers=headers).status_code,
        books.ask(headers=headers).status_code,
        books.ask().status_code,
        books.ask(streamed=True).status_code,
        books.ask(model="nonsense").status_code,
        books.ask(temperature="warm").status_code,
    ]
    assert statuses == [200, 200, 503, 200, 404, 400]
    rows = books.rows(6)
    assert [row["outcome"] for row in rows] == ["completed", "replayed", "failed", "failed", "refused", "refused"]
    assert paid(rows[0]) == (70, 30, 50, 0)
    assert rows[3]["tokens_out"] > 0
    assert [rows[place]["cost"] for place in (0, 1, 2, 4, 5)] == [20 * 1000 + 50 * 100 + 30 * 3000, 0, 0, 0, 0]
    assert books.requests == 3
    metrics = books.client.get("/metrics", headers={"Authorization": f"Bearer {ALICE_KEY}"}).text
    for kind, column in (("prompt", "tokens_in"), ("completion", "tokens_out")):
        assert f'kimi_tokens_total{{kind="{kind}",model="m"}} {sum(row[column] for row in rows):.1f}' in metrics
    with books.database.transaction(reads=True) as connection:
        by_key = usage_by(connection, "key", since=0, until=now() + 3_600_000)
        trouble = page_of_rows(connection, RowFilter(trouble=True)).rows
    assert [(sums["key"], sums["requests"]) for sums in by_key] == [(books.key.key.id, 3)]
    assert by_key[0]["tokens_in"] == 70 + rows[3]["tokens_in"]
    assert sorted(row["outcome"] for row in trouble) == ["failed", "failed", "refused", "refused"]
