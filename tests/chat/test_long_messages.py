"""A last message that is too long for the site, in the three ways that the operator can have it."""

import re
from typing import Any

import httpx
import pytest

from simulator.answers import compose_answer
from simulator.live import LiveSimulator
from tests.conftest import StartGateway

LONG = "My name is Ada. " + "Roses need the sun and water. " * 80 + "What is my name?"
IN_SESSION = {"X-Session-Id": "garden"}


def ask(client: httpx.Client, content: str, stream: bool = False, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": content}], "stream": stream, **fields}
    return client.post("/v1/chat/completions", json=body, headers=IN_SESSION)


def sent(site: LiveSimulator) -> list[str]:
    return [message.message for message in site.site.messages]


def remembered(client: httpx.Client) -> list[str]:
    return [message["content"] for message in client.get("/v1/sessions/garden").json()["messages"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_split_message_is_answered_once(site: LiveSimulator, start_gateway: StartGateway, stream: bool) -> None:
    """Its parts go up one after the other in one upstream session; only the last one's answer is told."""
    site.site.play(lambda prompt: "It is Ada." if "the last" in prompt else "NOISE")
    with start_gateway(long_messages="split") as gateway, gateway.client() as client:
        response = ask(client, LONG, stream)
        metrics = client.get("/metrics").text
        kept = remembered(client)
    assert response.status_code == 200
    assert ("It is Ada." in "".join(re.findall(r'"content": ?"(.*?)"', response.text)), "NOISE" in response.text) == (
        True,
        False,
    )
    parts = sent(site)
    assert len(parts) == 3
    assert [f"part {number} of 3" in part for number, part in enumerate(parts, 1)] == [True] * 3
    assert len({message.session_id for message in site.site.messages}) == 1
    assert kept == [LONG, "It is Ada."]
    assert 'kimi_step_seconds_count{step="upstream"} 3.0' in metrics


def test_the_last_part_comes_with_what_was_said_before(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """System prompt and history stand before it, as before any message."""
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "I am in Rome."},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": LONG},
    ]
    with start_gateway(long_messages="split") as gateway, gateway.client() as client:
        assert client.post("/v1/chat/completions", json={"messages": history}).status_code == 200
    first, *_, last = sent(site)
    assert first.startswith("My name is Ada.")
    assert last.startswith("[System]: Be brief.\n[User]: I am in Rome.\n[Assistant]: I see.\n[User]: ")
    assert last.endswith("Now answer the whole message.)")


@pytest.mark.parametrize("retries", [0, 3])
def test_a_part_that_fails_fails_the_message(site: LiveSimulator, start_gateway: StartGateway, retries: int) -> None:
    """Nothing is told or remembered of it; another try begins anew, in a session of its own."""

    def fail_after_the_first(prompt: str) -> str:
        if "part 1 of 3" in prompt and len(site.site.messages) == 1:
            site.site.update(failure="server_error", failure_times=1)
        return "Hm."

    site.site.play(fail_after_the_first)
    with start_gateway(long_messages="split", max_retries=retries) as gateway, gateway.client() as client:
        response = ask(client, LONG)
        if not retries:
            assert response.json()["error"]["code"] == "upstream_unavailable"
            assert client.get("/v1/sessions/garden").status_code == 404
            assert len(sent(site)) == 2
            return
    assert response.status_code == 200
    sessions = [message.session_id for message in site.site.messages]
    assert len(sessions) == 5
    assert (len(set(sessions[:2])), len(set(sessions[2:])), len(set(sessions))) == (1, 1, 2)


def test_nothing_need_be_said_to_a_part(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """An empty answer is one, as long as it isn't the last."""
    site.site.play(lambda prompt: compose_answer(prompt) if "the last" in prompt else "")
    with start_gateway(long_messages="split", max_retries=0) as gateway, gateway.client() as client:
        assert ask(client, LONG).status_code == 200
        site.site.play(lambda _: "")
        assert ask(client, LONG).json()["error"]["code"] == "empty_reply"


def test_parts_are_sent_again_with_a_reminder(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """A form that was missed is asked for once more with the whole message before it."""
    replies = iter(["", "", "", "no JSON", "", "", "", '{"name": "Ada"}'])
    site.site.play(lambda _: next(replies))
    with start_gateway(long_messages="split") as gateway, gateway.client() as client:
        response = ask(client, LONG, response_format={"type": "json_object"})
    assert response.json()["choices"][0]["message"]["content"] == '{"name": "Ada"}'
    assert len(sent(site)) == 8


def test_a_shortened_message_is_remembered_whole(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """The site gets its head and tail, the session all of it; headers say that something is missing."""
    with start_gateway(long_messages="shorten") as gateway, gateway.client() as client:
        response = ask(client, LONG)
        kept = remembered(client)
    (prompt,) = sent(site)
    assert response.headers["x-context-shortened"] == "1"
    assert prompt.startswith("My name is Ada.")
    assert prompt.endswith("What is my name?")
    assert re.search(r"\[… \d+ characters left out …\]", prompt)
    assert kept[0] == LONG


def test_results_of_tools_are_shortened_as_well(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """The longest of them, so that each still says something."""
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in range(2)]
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c0", "content": "A short result."},
        {"role": "tool", "tool_call_id": "c1", "content": "A long result. " * 200},
    ]
    with start_gateway(long_messages="shorten") as gateway, gateway.client() as client:
        assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 200
    assert "[Tool look]: A short result.\n" in sent(site)[0]
    assert "characters left out" in sent(site)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [("玫瑰需要阳光和水。" * 200, "您的消息共有 1800 个字符"), (LONG, f"Your message has {len(LONG)} characters")],
)
def test_a_long_message_is_refused_as_a_reader_understands(client: httpx.Client, content: str, words: str) -> None:
    """In its own language, behind the sentence by which programs know the fault."""
    error = ask(client, content).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 1000 characters. ")
    assert words in error["message"]


def test_what_is_demanded_is_refused_with_what_takes_the_room(client: httpx.Client) -> None:
    """The error names the field, how much it takes and how much there is."""
    tool = {"type": "function", "function": {"name": "look", "description": "Look. " * 300}}
    error = ask(client, "Look.", tools=[tool], tool_choice="required").json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "tools")
    assert re.search(
        r"is 1000 characters\. Telling the model about tools takes \d{4} characters, \d{4} together", error["message"]
    )
