"""Session memory over HTTP: the rules as a client meets them."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway
from tests.live import BOB_KEY, LiveGateway

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def ask(client: httpx.Client, *messages: dict[str, str], user: str | None = None, **headers: str) -> httpx.Response:
    body = {"messages": messages, **({"user": user} if user else {})}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/v1/chat/completions", json=body, headers=sent)


def action(response: httpx.Response) -> str:
    assert response.status_code == 200
    return response.headers["x-session-action"]


def prompts(site: LiveSimulator) -> list[str]:
    return [message.message for message in site.site.messages]


def test_without_a_session_nothing_is_remembered(site: LiveSimulator, client: httpx.Client) -> None:
    """No id, no memory, and no address or browser takes its place."""
    assert action(ask(client, user("My name is Ada."))) == "stateless"
    assert action(ask(client, user("What is my name?"))) == "stateless"
    assert prompts(site)[1] == "What is my name?"
    assert client.get("/v1/sessions").json()["data"] == []


@pytest.mark.parametrize("by", ["header", "user"])
def test_single_turns_continue_a_session(site: LiveSimulator, client: httpx.Client, by: str) -> None:
    """New, then continued: the second prompt holds the first turn and its answer."""
    where: dict[str, str] = {"X_Session_Id": "s1"} if by == "header" else {"user": "s1"}
    first = ask(client, SYSTEM, user("My name is Ada."), **where)
    second = ask(client, user("What is my name?"), **where)
    assert (action(first), action(second)) == ("new", "continued")
    assert second.headers["x-session-id"] == "s1"
    assert "Ada" in second.json()["choices"][0]["message"]["content"]
    assert prompts(site)[1].startswith("[System]: Be brief.\n[User]: My name is Ada.\n[Assistant]: ")


def test_the_header_goes_before_user(client: httpx.Client) -> None:
    """X-Session-Id decides where both are given."""
    assert ask(client, user("Hi"), user="u", X_Session_Id="h").headers["x-session-id"] == "h"


def test_a_whole_conversation_replaces_what_was_remembered(site: LiveSimulator, client: httpx.Client) -> None:
    """The client's own history wins, so that edits and branches come out right."""
    ask(client, user("My name is Ada."), X_Session_Id="s1")
    edited = ask(client, user("My name is Eve."), assistant("Hello Eve."), user("Who am I?"), X_Session_Id="s1")
    assert action(edited) == "replaced"
    assert "Ada" not in prompts(site)[1]
    texts = [message["content"] for message in client.get("/v1/sessions/s1").json()["messages"]]
    assert texts[:3] == ["My name is Eve.", "Hello Eve.", "Who am I?"]


def test_a_user_that_keeps_its_own_history_begins_anew_with_a_lone_turn(
    site: LiveSimulator, client: httpx.Client
) -> None:
    """Chat clients that send a constant user don't get their chats mixed up; a session header still continues."""
    ask(client, user("My name is Ada."), assistant("Hello Ada."), user("How are you?"), user="openwebui")
    lone = ask(client, user("What is my name?"), user="openwebui")
    assert action(lone) == "new"
    assert prompts(site)[1] == "What is my name?"
    ask(client, user("My name is Ada."), assistant("Hello Ada."), user("How are you?"), X_Session_Id="s1")
    assert action(ask(client, user("What is my name?"), X_Session_Id="s1")) == "continued"


def test_session_from_user_can_be_switched_off(start_gateway: StartGateway) -> None:
    """With SESSION_FROM_USER=off only the header opens a session."""
    with start_gateway(session_from_user="off") as gateway, gateway.client() as http:
        assert action(ask(http, user("Hi"), user="u" * 300)) == "stateless"
        assert action(ask(http, user("Hi"), X_Session_Id="s1")) == "new"


def test_reset_and_strict(client: httpx.Client) -> None:
    """Reset begins anew; strict refuses a session that isn't there instead of beginning one."""
    strict = ask(client, user("Hi"), X_Session_Id="s1", X_Session_Strict="true")
    assert (strict.status_code, strict.json()["error"]["code"]) == (404, "session_not_found")
    ask(client, user("My name is Ada."), X_Session_Id="s1")
    assert action(ask(client, user("Hi"), X_Session_Id="s1", X_Session_Strict="true")) == "continued"
    reset = ask(client, user("What is my name?"), X_Session_Id="s1", X_Session_Reset="true")
    assert action(reset) == "reset"
    assert client.get("/v1/sessions/s1").json()["message_count"] == 2


@pytest.mark.parametrize("again", [{"x_stainless_retry_count": "1"}, {"Idempotency_Key": "k1"}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_sent_again_gets_the_stored_answer(
    site: LiveSimulator, client: httpx.Client, again: dict[str, str], stream: bool
) -> None:
    """An SDK's retry, or the same idempotency key, is answered without another message and not added twice."""
    key = {"Idempotency_Key": "k1"} if "Idempotency_Key" in again else {}
    first = ask(client, user("Hello"), X_Session_Id="s1", **key)
    headers = {name.replace("_", "-"): value for name, value in again.items()} | {"X-Session-Id": "s1"}
    body = {"messages": [user("Hello")], "stream": stream}
    second = client.post("/v1/chat/completions", json=body, headers=headers)
    assert action(second) == "replayed"
    assert second.headers["x-prompt-chars"] == first.headers["x-prompt-chars"]
    answer = first.json()["choices"][0]["message"]["content"]
    if not stream:
        assert second.json()["choices"][0]["message"]["content"] == answer
    assert len(site.site.messages) == 1
    assert client.get("/v1/sessions/s1").json()["message_count"] == 2
    other = client.post("/v1/chat/completions", json={"messages": [user("Something else")]}, headers=headers)
    assert action(other) == "continued"


def test_a_failed_turn_leaves_the_session_as_it_was(site: LiveSimulator, client: httpx.Client) -> None:
    """Nothing of a turn that got no answer is remembered."""
    ask(client, user("Hello"), X_Session_Id="s1")
    before = client.get("/v1/sessions/s1").json()
    site.site.update(failure="html", failure_times=1)
    assert ask(client, user("Again"), X_Session_Id="s1").status_code == 502
    assert client.get("/v1/sessions/s1").json() == before


def test_callers_never_meet_in_a_session(gateway: LiveGateway) -> None:
    """The same session id under two keys is two sessions, for reading, listing and deleting too."""
    with gateway.client() as alice, gateway.client(BOB_KEY) as bob:
        ask(alice, user("My name is Ada."), X_Session_Id="s1")
        assert bob.get("/v1/sessions/s1").status_code == 404
        assert bob.delete("/v1/sessions/s1").status_code == 404
        assert bob.get("/v1/sessions").json()["data"] == []
        answer = ask(bob, user("What is my name?"), X_Session_Id="s1")
        assert action(answer) == "new"
        assert "Ada" not in answer.json()["choices"][0]["message"]["content"]
        assert [session["id"] for session in alice.get("/v1/sessions").json()["data"]] == ["s1"]


@pytest.mark.parametrize("session_id", ["a/b c?d#e", "会话-1", "%2e%2e", "x" * 256])
def test_any_id_can_be_read_and_forgotten(client: httpx.Client, session_id: str) -> None:
    """Ids with slashes, spaces or other scripts work in the body, in the URL, and come back in an ASCII header."""
    response = ask(client, user("Hi"), user=session_id)
    assert response.headers["x-session-id"].isascii()
    url = httpx.URL("/v1/sessions/").copy_with(raw_path=b"/v1/sessions/" + _quoted(session_id))
    assert client.get(url).json()["id"] == session_id
    assert client.delete(url).json() == {"id": session_id, "object": "session.deleted", "deleted": True}
    assert client.get(url).status_code == 404


def test_an_id_is_the_same_session_however_it_is_sent(client: httpx.Client) -> None:
    """As `user`, as UTF-8 in the header, and as the header that came back: one session."""
    first = ask(client, user("My name is Ada."), user="桌子 1")
    body = {"messages": [user("What is my name?")]}
    raw = client.post("/v1/chat/completions", json=body, headers={b"X-Session-Id": "桌子 1".encode()})
    returned = ask(client, user("Who am I?"), X_Session_Id=first.headers["x-session-id"])
    assert (action(raw), action(returned)) == ("continued", "continued")
    assert [session["id"] for session in client.get("/v1/sessions").json()["data"]] == ["桌子 1"]


@pytest.mark.parametrize("count", ["²", "9" * 5000, "-1", "x", ""])
def test_a_senseless_retry_count_is_no_retry(client: httpx.Client, count: str) -> None:
    """Whatever stands in an SDK's retry header, the request is answered."""
    headers = {b"x-stainless-retry-count": count.encode("latin-1"), b"x-session-id": b"s1"}
    assert client.post("/v1/chat/completions", json={"messages": [user("Hi")]}, headers=headers).status_code == 200


def test_a_405_names_all_methods_of_the_address(client: httpx.Client) -> None:
    """Allow lists what every route at the address takes together."""
    response = client.put("/v1/sessions/s1")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, HEAD")


def test_an_id_that_is_too_long_is_refused(client: httpx.Client) -> None:
    """The limit of 256 characters is told, with the field that broke it."""
    response = ask(client, user("Hi"), user="x" * 257)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "user")


def test_concurrent_requests_of_one_session_are_all_remembered(site: LiveSimulator, gateway: LiveGateway) -> None:
    """Eight requests at once on one session are answered one after the other, and every turn is kept."""
    site.site.update(latency_s=0.02)
    with gateway.client() as http, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: ask(http, user(f"turn {n}"), X_Session_Id="s1").status_code, range(8)))
        session = http.get("/v1/sessions/s1").json()
    assert statuses == [200] * 8
    assert site.site.counters.max_in_flight == 1
    turns = [message["content"] for message in session["messages"] if message["role"] == "user"]
    assert sorted(turns) == [f"turn {n}" for n in range(8)]
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"] * 8


def test_a_session_that_stays_busy_is_a_409(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """Who waits for longer than SESSION_LOCK_WAIT is told to come back."""
    site.site.update(failure="hang")
    with start_gateway(session_lock_wait=0.05) as gateway, gateway.client() as http, gateway.send(user="s1"):
        assert site.site.wait_for(lambda counters: counters.in_flight == 1)
        busy = ask(http, user("Hi"), user="s1")
        deleting = http.delete("/v1/sessions/s1")
    assert (busy.status_code, busy.json()["error"]["code"], busy.headers["retry-after"]) == (409, "session_busy", "1")
    assert deleting.status_code == 409


def test_long_conversations_are_cut_to_fit_and_it_is_told(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """The headers say how much of the conversation was left out, and the stored transcript keeps all of it."""
    with start_gateway(context_max_length=300) as gateway, gateway.client() as http:
        for number in range(6):
            response = ask(http, user(f"Turn {number}: " + "x" * 60), X_Session_Id="s1")
        size, limit = map(int, response.headers["x-prompt-chars"].split("/"))
        assert (limit, size <= 300) == (300, True)
        assert int(response.headers["x-context-dropped"]) > 0
        assert http.get("/v1/sessions/s1").json()["message_count"] == 12
        too_long = ask(http, user("y" * 301))
    assert len(prompts(site)[-1]) == size
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "301" in too_long.json()["error"]["message"]
    assert "CONTEXT_MAX_LENGTH" in too_long.json()["error"]["message"]


def _quoted(text: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in text.encode()).encode()
