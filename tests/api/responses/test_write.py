"""A response on its way: written whole, kept, and the same as its stream."""

import json
from typing import Any

import pytest
from openai.types.responses import Response

from app.api.dialects import Exchange
from app.api.responses.dialect import RESPONSES
from app.api.responses.kept import KeptResponses
from app.chat.deltas import gather
from app.chat.events import Ending
from app.domain.chat import Delta, ToolCallDelta, Usage
from app.domain.errors import ResponseNotFound
from app.sessions.memory import MemorySnapshotStore
from tests.api.answers import OPENING, answer, ending
from tests.api.reading import read

# An answer that thinks again after it has said something.
DELTAS = [
    Delta(reasoning="Where"),
    Delta(reasoning=" am I?"),
    Delta("Let me look."),
    Delta(tool_call=ToolCallDelta(0, "c0", "look", '{"at":')),
    Delta(tool_call=ToolCallDelta(0, arguments='"sky"}')),
    Delta(reasoning="And now?"),
    Delta("I see."),
    Delta(tool_call=ToolCallDelta(1, "c1", "wait", "{}")),
]


def _store() -> MemorySnapshotStore:
    return MemorySnapshotStore(max_snapshots=10, time_to_live=60)


async def _whole(exchange: Exchange, end: Ending) -> dict[str, Any]:
    """The response to a call that wasn't streamed, as the frame has it written."""
    assert exchange.keep is not None
    await exchange.keep(end)
    document = json.loads(exchange.write([answer("", usage=end.usage)]))
    Response.model_validate(document)
    assert isinstance(document, dict)
    return document


async def _kept(store: MemorySnapshotStore, response_id: str) -> dict[str, Any]:
    return (await KeptResponses(store, max_characters=1000).load("alice", response_id)).response


async def test_a_response_is_written_as_it_is_kept() -> None:
    """What the client gets is what it can read later, and says that it is kept."""
    store = _store()
    exchange = read(RESPONSES, {"input": "Hi", "metadata": {"a": "b"}}, snapshots=store)
    response = await _whole(exchange, ending(usage=Usage(3, 4), text="Hello."))
    assert response["output"][0]["content"][0]["text"] == "Hello."
    assert (response["status"], response["store"], response["metadata"]) == ("completed", True, {"a": "b"})
    assert response["usage"]["total_tokens"] == 7
    assert await _kept(store, response["id"]) == response


async def test_a_response_that_is_not_to_be_kept_says_so() -> None:
    """With `store: false` it is answered all the same, and not found later."""
    store = _store()
    response = await _whole(read(RESPONSES, {"input": "Hi", "store": False}, snapshots=store), ending(text="Hello."))
    assert response["store"] is False
    with pytest.raises(ResponseNotFound):
        await _kept(store, response["id"])


async def test_a_streamed_response_ends_as_it_is_kept() -> None:
    """The stream's last event holds the kept response, item by item, also where thoughts and words alternate."""
    store = _store()
    exchange = read(RESPONSES, {"input": "Hi", "stream": True}, snapshots=store)
    encoder = exchange.encoder(OPENING)
    encoder.opening()
    for delta in DELTAS:
        if delta.reasoning:
            encoder.reasoning(delta.reasoning)
        if delta.text:
            encoder.text(delta.text)
        if delta.tool_call is not None:
            encoder.tool_call(delta.tool_call)
    end = Ending(gather(DELTAS), Usage(3, 4))
    assert exchange.keep is not None
    await exchange.keep(end)
    last = encoder.ending(end).rpartition(b"\ndata: ")[2]
    response = json.loads(last)["response"]
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "reasoning",
        "message",
        "function_call",
    ]
    assert await _kept(store, response["id"]) == response
