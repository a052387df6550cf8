"""Chat apps in front of the site alone, which takes 1,000 characters at a time."""

import json
from typing import Any

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.apps.bodies import Body, answered, background, open_webui_tools, too_long
from tests.conftest import StartGateway

LIMIT = 1000


def _ask(client: httpx.Client, body: Body) -> tuple[httpx.Response, str]:
    """The response, and the text of the answer, whole or streamed."""
    response = client.post("/v1/chat/completions", json={"model": "kimi", **body})
    if response.status_code != 200:
        return response, ""
    if not body.get("stream"):
        return response, response.json()["choices"][0]["message"]["content"]
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks: list[dict[str, Any]] = [json.loads(event) for event in events[:-1]]
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    return response, "".join(texts)


def test_the_tools_are_as_many_as_in_the_app() -> None:
    """Open WebUI's tools make up about 17,500 characters."""
    assert 16_000 < len(json.dumps(open_webui_tools())) < 19_000


@pytest.mark.parametrize("app", answered())
def test_a_chat_is_answered_and_remembers(site: LiveSimulator, client: httpx.Client, app: str) -> None:
    """Whatever else the app sends, the question arrives within the limit, with what was said two turns ago."""
    response, text = _ask(client, answered()[app])
    assert response.status_code == 200, response.text
    assert text == "Your name is Ada."
    assert len(site.site.messages[-1].message) <= LIMIT


@pytest.mark.parametrize("app", background())
def test_what_is_asked_on_behalf_of_a_chat_is_answered(site: LiveSimulator, client: httpx.Client, app: str) -> None:
    """The instruction, the form that it asks for, and the conversation reach the model, shortened."""
    body, told = background()[app]
    assert sum(len(message["content"]) for message in body["messages"]) > LIMIT
    response, text = _ask(client, body)
    assert response.status_code == 200, response.text
    assert text
    sent = site.site.messages[-1].message
    assert len(sent) <= LIMIT
    assert [words for words in told if words not in sent] == []


@pytest.mark.parametrize("app", too_long())
def test_what_must_be_read_in_full_is_refused_in_plain_words(client: httpx.Client, app: str) -> None:
    """The error says how long the message is, how much may be sent, and what can be done."""
    response, _ = _ask(client, too_long()[app])
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    size = len(too_long()[app]["messages"][-1]["content"])
    for words in (f"Your message has {size} characters", "takes 1000 at a time", "smaller parts", "LONG_MESSAGES"):
        assert words in error["message"]


@pytest.mark.parametrize("app", too_long())
@pytest.mark.parametrize("long_messages", ["shorten", "split"])
def test_what_is_too_long_can_be_shortened_or_split(
    site: LiveSimulator, start_gateway: StartGateway, app: str, long_messages: str
) -> None:
    """As the operator has it, the message is answered all the same, if it needs no more than ten parts."""
    body = too_long()[app]
    content = body["messages"][-1]["content"]
    with start_gateway(long_messages=long_messages) as gateway, gateway.client() as client:
        response, text = _ask(client, body)
    if long_messages == "split" and len(content) > 9 * LIMIT:
        assert response.status_code == 400
        return
    assert response.status_code == 200, response.text
    assert text
    sent = [message.message for message in site.site.messages]
    assert all(len(message) <= LIMIT for message in sent)
    assert (len(sent) > 1) == (long_messages == "split")
    assert content[:40] in sent[0]
    assert content[-40:] in sent[-1]
