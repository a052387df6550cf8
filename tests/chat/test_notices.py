"""The line below an answer that tells what its model didn't get to read."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import StartGateway

MARK = "> ⓘ "
OLD = "Roses need the sun and water. " * 30
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": OLD},
    {"role": "assistant", "content": OLD},
    {"role": "user", "content": "Repeat after me: Yes."},
]
TOOL = {"type": "function", "function": {"name": "large", "parameters": {"properties": {"x" * 900: {}}}}}


@pytest.fixture
def telling(start_gateway: StartGateway) -> Iterator[httpx.Client]:
    """A client of a gateway with NOTICES=brief."""
    with start_gateway(notices="brief") as gateway, gateway.client() as client:
        yield client


def answer(client: httpx.Client, messages: list[dict[str, Any]] = HISTORY, **fields: Any) -> str:
    response = client.post("/v1/chat/completions", json={"messages": messages, **fields})
    assert response.status_code == 200
    return str(response.json()["choices"][0]["message"]["content"])


def test_usually_nothing_is_added(client: httpx.Client) -> None:
    """Without the setting an answer is what the model said."""
    assert answer(client) == "Yes."


def test_a_whole_answer_ends_with_the_notice(telling: httpx.Client) -> None:
    """It counts what is missing; an answer to which everything was read has none."""
    assert answer(telling) == f"Yes.\n\n{MARK}Not everything fit: 2 messages shortened."
    longer = [*HISTORY[:2] * 6, HISTORY[2]]
    assert re.search(r"\d+ earlier messages left out, \d+ messages shortened\.$", answer(telling, longer))
    assert answer(telling, HISTORY[2:]) == "Yes."


def test_a_stream_ends_with_the_notice(telling: httpx.Client) -> None:
    """As its last delta, before the finish reason."""
    response = telling.post("/v1/chat/completions", json={"messages": HISTORY, "stream": True})
    events = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event.startswith("data: ")]
    deltas = [json.loads(event)["choices"][0] for event in events[:-1]]
    said = [choice["delta"]["content"] for choice in deltas if choice["delta"].get("content")]
    assert "".join(said[:-1]) == "Yes."
    assert said[-1].startswith(f"\n\n{MARK}Not everything fit: ")
    assert deltas[-1]["finish_reason"] == "stop"


def test_it_is_in_the_conversations_language(telling: httpx.Client) -> None:
    """Chinese where the last message is."""
    assert "缩短了 2 条消息" in answer(telling, [*HISTORY[:2], {"role": "user", "content": "你好，我是谁？"}])


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_not_remembered(site: LiveSimulator, telling: httpx.Client, stream: bool) -> None:
    """Neither in a session nor in a stored response, from which the conversation goes on."""
    in_session = {"X-Session-Id": "s"}
    body = {"messages": HISTORY, "stream": stream}
    assert MARK in telling.post("/v1/chat/completions", json=body, headers=in_session).content.decode()
    assert MARK not in telling.get("/v1/sessions/s").text
    response = telling.post("/v1/responses", json={"input": HISTORY, "stream": stream}).text
    assert MARK in response
    response_id = json.loads(response.split("data: ")[-1] if stream else response)
    response_id = response_id["response"]["id"] if stream else response_id["id"]
    assert MARK not in telling.get(f"/v1/responses/{response_id}").text
    telling.post("/v1/responses", json={"input": "And?", "previous_response_id": response_id})
    assert MARK not in site.site.messages[-1].message


@pytest.mark.parametrize("notices", ["off", "brief"])
def test_it_takes_no_room_when_it_comes_back(site: LiveSimulator, start_gateway: StartGateway, notices: str) -> None:
    """A client's history holds it; the model isn't told, whether notices are still wanted or not."""
    with start_gateway(notices="brief") as gateway, gateway.client() as client:
        noticed = answer(client)
    with start_gateway(notices=notices) as gateway, gateway.client() as client:
        back = [*HISTORY[2:], {"role": "assistant", "content": noticed}, {"role": "user", "content": "And?"}]
        answer(client, back)
    assert MARK in noticed
    assert site.site.messages[-1].message == "[User]: Repeat after me: Yes.\n[Assistant]: Yes.\n[User]: And?"


def test_tools_that_were_left_out_are_told_once(telling: httpx.Client) -> None:
    """With the first answer of a conversation: it is the same with every other."""
    assert answer(telling, HISTORY[2:], tools=[TOOL]).endswith("Not everything fit: 1 tool left out.")
    short = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, HISTORY[2]]
    assert answer(telling, short, tools=[TOOL]) == "Yes."


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ('Repeat after me: {"a": 1}', {"response_format": {"type": "json_object"}}),
        ('Repeat after me: {"a": 1}', {}),
        ("Repeat after me: A title", {"stop": ["\n"]}),
        ("Repeat after me: a long answer", {"max_tokens": 1}),
        ("Make a title for our conversation. Repeat after me: Roses", {}),
        ("请为我们的对话起一个标题", {}),
    ],
)
def test_what_programs_read_has_none(telling: httpx.Client, asked: str, fields: dict[str, Any]) -> None:
    """JSON, answers that end at a mark or were cut, and what is asked on behalf of a chat."""
    assert MARK not in answer(telling, [*HISTORY[:2], {"role": "user", "content": asked}], **fields)


def test_what_only_the_system_prompt_asks_on_behalf_of_a_chat_has_none(telling: httpx.Client) -> None:
    """A title may be asked for there, with the conversation below it, quoted or not."""
    title = {"role": "system", "content": "你擅长会话，请把用户的会话总结为十个字以内的标题。"}
    assert MARK not in answer(telling, [title, *HISTORY])
    assert MARK not in answer(telling, [title, {"role": "user", "content": f"User: {OLD}\nAssistant: {OLD}"}])


def test_a_call_of_a_tool_has_none(telling: httpx.Client) -> None:
    """The text beside it is for the program that called."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    asked = [*HISTORY[:2], {"role": "user", "content": "Call look with {}"}]
    response = telling.post("/v1/chat/completions", json={"messages": asked, "tools": [tool]})
    assert response.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert MARK not in response.content.decode()
