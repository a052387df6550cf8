"""Keys that were given out, over real sockets: what they open, what they cost, and how they are taken back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from app.keys.administration import NewSecret, create_key, pause_key, revoke_key, rotate_key, update_key
from app.storage.clock import now
from app.storage.database import Database
from simulator.live import LiveSimulator
from tests import databases
from tests.conftest import RunLog, StartGateway
from tests.live import LiveGateway, until
from tests.scripted import ScriptedProvider, gateway_with
from tests.storage.calls import rows_of

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """A gateway that keeps keys and ledger in the test's database."""
    return {"database_url": database_url, "journal_dir": tmp_path / "journal"}


@pytest.fixture
def keeper(start_gateway: StartGateway, database: Database, settings: dict[str, Any]) -> Iterator[LiveGateway]:
    """Such a gateway, running."""
    with start_gateway(**settings) as gateway:
        yield gateway


def _create(database: Database, name: str = "ada", **fields: Any) -> NewSecret:
    with database.transaction() as connection:
        return create_key(connection, name=name, **fields)


def _chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    return client.post("/v1/chat/completions", json=body)


def test_a_key_opens_and_every_call_is_in_the_ledger(keeper: LiveGateway, database: Database) -> None:
    """A whole answer, a streamed one, and one in Anthropic's dialect: each is a row with its tokens."""
    new = _create(database, project="lab")
    with keeper.client(new.secret) as client:
        assert _chat(client, user="somebody").status_code == 200
        assert _chat(client, stream=True).status_code == 200
        message = {"model": "kimi", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/messages", json=message).status_code == 200
        first, second, third = rows_of(database, 3)
        assert {row["key_id"] for row in (first, second, third)} == {new.key.id}
        assert {row["project"] for row in (first, second, third)} == {"lab"}
        assert [row["dialect"] for row in (first, second, third)] == ["openai", "openai", "anthropic"]
        assert [row["streamed"] for row in (first, second, third)] == [0, 1, 0]
        assert first["end_user"] == "somebody"
        assert all(row["tokens_in"] > 0 and row["tokens_out"] > 0 and row["estimated"] for row in (first, second))
        used = client.get("/v1/key").json()
    assert (used["id"], used["name"], used["project"], used["scopes"]) == (new.key.id, "ada", "lab", ["chat"])
    assert used["usage"]["today"]["requests"] == 3
    assert used["usage"]["today"]["tokens_in"] == sum(row["tokens_in"] for row in (first, second, third))


def test_the_keys_of_the_environment_stay_what_they_are(keeper: LiveGateway, database: Database) -> None:
    """They open as before, and their calls are in the ledger, too."""
    with keeper.client() as client:
        assert _chat(client).status_code == 200
        info = client.get("/v1/key").json()
    (row,) = rows_of(database, 1)
    assert row["key_id"] == info["id"]
    assert row["project"] == info["project"] == "environment"


def test_models_outside_the_key_s_don_t_exist_for_it(
    site: LiveSimulator, run_log: RunLog, database: Database, settings: dict[str, Any]
) -> None:
    """They are a 404 in every dialect, streamed or not, and missing from the lists."""
    new = _create(database, models=["first-*"])
    with (
        gateway_with(
            site, run_log.stream, ScriptedProvider("first"), ScriptedProvider("second"), **settings
        ) as gateway,
        gateway.client(new.secret) as client,
    ):
        assert _chat(client, model="first-model").status_code == 200
        for refused in (
            _chat(client, model="second-model"),
            _chat(client, model="second-model", stream=True),
            _chat(client, model="second/second-model"),
            _chat(client),
            client.post("/v1/responses", json={"model": "second-model", "input": "Hello"}),
            client.post("/v1/completions", json={"model": "second-model", "prompt": "Hello"}),
            client.post(
                "/v1/messages",
                json={"model": "second-model", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
            ),
        ):
            assert refused.status_code == 404, refused.text
        assert {model["id"] for model in client.get("/v1/models").json()["data"]} == {"first-model"}
        anthropic = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["data"]
        assert {model["id"] for model in anthropic} == {"first-model"}
        assert client.get("/v1/models/first-model").status_code == 200
        assert client.get("/v1/models/second-model").status_code == 404


def test_scopes_say_what_a_key_may_do(keeper: LiveGateway, database: Database) -> None:
    """One for metrics can't chat, and one for chatting can't read metrics; both are told why."""
    chats, reads = _create(database), _create(database, "prometheus", scopes=["metrics"])
    with keeper.client(chats.secret) as client:
        assert _chat(client).status_code == 200
        refused = client.get("/metrics")
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "missing_scope"
        assert "'metrics'" in refused.json()["error"]["message"]
    with keeper.client(reads.secret) as client:
        assert "kimi_ledger_lost" in client.get("/metrics").text
        refused = _chat(client)
        assert refused.status_code == 403
        anthropic = client.post("/v1/messages", json={"model": "kimi", "max_tokens": 1, "messages": []})
        assert anthropic.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize(("change", "code"), [(pause_key, "key_paused"), (revoke_key, "key_revoked")])
def test_a_key_that_is_taken_back_stops_opening_on_every_worker(
    start_gateway: StartGateway,
    database: Database,
    settings: dict[str, Any],
    change: Callable[..., object],
    code: str,
) -> None:
    """Two workers that have served it refuse it with the reason."""
    new = _create(database)
    with ExitStack() as stack:
        workers = [stack.enter_context(start_gateway(**settings)) for _ in range(2)]
        clients = [stack.enter_context(worker.client(new.secret)) for worker in workers]
        assert [_chat(client).status_code for client in clients] == [200, 200]
        with database.transaction() as connection:
            change(database, connection, new.key)
        for client in clients:
            until(lambda client=client: _chat(client).status_code == 401)  # type: ignore[misc]
            assert _chat(client).json()["error"]["code"] == code


@pytest.mark.parametrize(
    "presented", ["sk-kimi-short", "sk-kimi-" + "0" * 38, "sk-other-4f9a1c77d2e04f9a1c77d2e0"], ids=str
)
def test_a_typo_is_a_401_as_ever(keeper: LiveGateway, presented: str) -> None:
    """Whatever it looks like."""
    with keeper.client(presented) as client:
        refused = _chat(client)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_an_expired_key_says_so(keeper: LiveGateway, database: Database) -> None:
    """Its holder learns what is wrong, and is not left guessing."""
    new = _create(database)
    with database.transaction() as connection:
        update_key(database, connection, replace(new.key, expires_at=now() - 1))
    with keeper.client(new.secret) as client:
        refused = _chat(client)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "key_expired"


def test_refused_calls_are_rows_without_tokens(keeper: LiveGateway, database: Database) -> None:
    """A malformed one, a model that doesn't exist, a message that is too long: each with its code, none charged."""
    with keeper.client(_create(database).secret) as client:
        assert _chat(client, temperature="warm").status_code == 400
        assert _chat(client, model="nonsense").status_code == 404
        assert _chat(client, messages=[{"role": "user", "content": "x" * 5000}]).status_code == 400
    rows = rows_of(database, 3)
    assert [(row["outcome"], row["status"], row["tokens_in"], row["tokens_out"]) for row in rows] == [
        ("refused", 400, 0, 0),
        ("refused", 404, 0, 0),
        ("refused", 400, 0, 0),
    ]
    codes = ["invalid_type", "model_not_found", "context_length_exceeded"]
    assert [row["error"] for row in rows] == codes


def test_sessions_belong_to_the_key_and_not_to_its_secret(keeper: LiveGateway, database: Database) -> None:
    """A conversation goes on after the key was rotated."""
    new = _create(database)
    with keeper.client(new.secret) as client:
        assert _chat(client, user="me").headers["x-session-action"] == "new"
    with database.transaction() as connection:
        second = rotate_key(database, connection, new.key, grace_seconds=0)
    with keeper.client(second.secret) as client:
        assert _chat(client, user="me").headers["x-session-action"] == "continued"
