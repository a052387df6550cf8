"""The responses dialect with the official Python SDK, against a running gateway."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

import pytest
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI, pydantic_function_tool
from openai.types.responses import CustomToolParam, FunctionToolParam, ResponseFunctionToolCall
from pydantic import BaseModel

from app.domain.chat import Completion, Delta, Message, ToolCall, ToolCallDelta, Usage
from app.domain.errors import UpstreamTimeout
from app.providers.base import CompletionRequest
from simulator.live import LiveSimulator
from tests import redis_server as servers
from tests.clients.sdk import MODEL, connect
from tests.conftest import StartGateway
from tests.live import BOB_KEY, LiveGateway
from tests.redis_server import RedisServer
from tests.scripted import ScriptedProvider, gateway_with

shared_redis, redis_server = servers.shared_redis, servers.redis_server

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather somewhere.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
Scripted = Callable[[ScriptedProvider], AbstractContextManager[OpenAI]]


@pytest.fixture
def scripted(site: LiveSimulator, log_stream: TextIO) -> Scripted:
    """The SDK at a gateway with a provider of the test's own, not the site."""

    @contextmanager
    def run(provider: ScriptedProvider) -> Iterator[OpenAI]:
        with gateway_with(site, log_stream, provider) as gateway, connect(gateway) as client:
            yield client

    return run


def _able(answer: Any) -> ScriptedProvider:
    return ScriptedProvider("able", answer, abilities=["messages", "options", "tools", "json_schema", "images"])


def test_a_response_is_answered_kept_read_and_forgotten(openai_client: OpenAI, site: LiveSimulator) -> None:
    """What `create` returns can be retrieved with the items that it answered, until it is deleted."""
    site.site.update(reply="Hello Ada.")
    response = openai_client.responses.create(model=MODEL, input="I am Ada.", metadata={"a": "b"})
    assert (response.output_text, response.status, response.model) == ("Hello Ada.", "completed", MODEL)
    assert (response.metadata, response.to_dict()["store"]) == ({"a": "b"}, True)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert openai_client.responses.retrieve(response.id) == response
    [item] = openai_client.responses.input_items.list(response.id)
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "I am Ada."}]
    openai_client.responses.delete(response.id)
    with pytest.raises(NotFoundError) as refusal:
        openai_client.responses.retrieve(response.id)
    assert refusal.value.code == "response_not_found"


def test_a_stream_ends_with_the_response_that_is_kept(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The SDK's helper, which insists on the order of events, ends with what `retrieve` returns."""
    site.site.update(reply="One two three. " * 20)
    with openai_client.responses.stream(model=MODEL, input="Count.") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.to_dict()["store"] is True
    assert openai_client.responses.retrieve(final.id).output_text == final.output_text == "One two three. " * 20


def test_a_reader_who_leaves_finds_the_response(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """The response is kept as soon as it is known, however slowly it is typed out."""
    site.site.update(reply="word " * 50)
    with start_gateway(typing_delay_seconds=0.5, typing_max_seconds=60) as gateway, connect(gateway) as client:
        with client.responses.create(model=MODEL, input="Go on.", stream=True) as stream:
            first = next(stream)
            assert first.type == "response.created"
            next(event for event in stream if event.type == "response.output_text.delta")
        assert client.responses.retrieve(first.response.id).output_text == "word " * 50


def test_a_conversation_goes_on_from_a_response(
    openai_client: OpenAI, gateway: LiveGateway, site: LiveSimulator
) -> None:
    """The earlier turns are part of the prompt, their instructions aren't, and nobody else can go on from them."""
    site.site.update(reply="Hello Ada.")
    first = openai_client.responses.create(model=MODEL, input="I am Ada.", instructions="Be brief.")
    second = openai_client.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
    third = openai_client.responses.create(model=MODEL, input="Sure?", previous_response_id=second.id)
    prompts = [message.message for message in site.site.messages]
    assert prompts[0].startswith("[System]: Be brief.")
    assert prompts[1] == "[User]: I am Ada.\n[Assistant]: Hello Ada.\n[User]: Who am I?"
    assert prompts[2] == f"{prompts[1]}\n[Assistant]: Hello Ada.\n[User]: Sure?"
    listed = openai_client.responses.input_items.list(third.id, order="asc", limit=2)
    assert len(list(listed)) == 5
    with connect(gateway, BOB_KEY) as bob, pytest.raises(BadRequestError) as refusal:
        bob.responses.create(model=MODEL, input="Who is she?", previous_response_id=first.id)
    assert (refusal.value.code, refusal.value.param) == ("previous_response_not_found", "previous_response_id")


def test_any_worker_goes_on_from_a_response_in_redis(
    start_gateway: StartGateway, redis_server: RedisServer, site: LiveSimulator
) -> None:
    """What one worker has kept, another one continues, reads and forgets."""
    site.site.update(reply="Hello Ada.")
    with (
        start_gateway(session_store_url=redis_server.url) as one,
        start_gateway(session_store_url=redis_server.url) as other,
        connect(one) as here,
        connect(other) as there,
    ):
        first = here.responses.create(model=MODEL, input="I am Ada.")
        second = there.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
        assert here.responses.retrieve(second.id).output_text == "Hello Ada."
        there.responses.delete(first.id)
        with pytest.raises(NotFoundError):
            here.responses.retrieve(first.id)
    assert site.site.messages[-1].message.startswith("[User]: I am Ada.\n[Assistant]: Hello Ada.")


def test_items_that_are_kept_can_be_referred_to(openai_client: OpenAI, site: LiveSimulator) -> None:
    """Some SDKs send an item's id in place of the item; an unknown one is named."""
    site.site.update(reply="Hello Ada.")
    first = openai_client.responses.create(model=MODEL, input="I am Ada.")
    openai_client.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": "I am Ada."},
            {"type": "item_reference", "id": first.output[0].id or ""},
            {"role": "user", "content": "Who am I?"},
        ],
    )
    assert site.site.messages[-1].message == "[User]: I am Ada.\n[Assistant]: Hello Ada.\n[User]: Who am I?"
    with pytest.raises(BadRequestError) as refusal:
        openai_client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_1"}])
    assert refusal.value.param == "input[0].id"


def test_what_is_not_to_be_kept_is_not(openai_client: OpenAI) -> None:
    """`store=False` leaves nothing behind, and the response says so."""
    response = openai_client.responses.create(model=MODEL, input="Hello", store=False)
    assert response.to_dict()["store"] is False
    with pytest.raises(NotFoundError):
        openai_client.responses.retrieve(response.id)


def test_an_answer_comes_also_while_nothing_can_be_kept(start_gateway: StartGateway) -> None:
    """With the store away the response says that it isn't kept; what depends on the store gets a 503."""
    with start_gateway(session_store_url="redis://127.0.0.1:1/0") as gateway, connect(gateway) as client:
        response = client.responses.create(model=MODEL, input="Hello")
        assert response.status == "completed"
        assert response.to_dict()["store"] is False
        with client.responses.stream(model=MODEL, input="Hello") as stream:
            assert stream.get_final_response().to_dict()["store"] is False
        with pytest.raises(InternalServerError) as refusal:
            client.responses.create(model=MODEL, input="Hello", previous_response_id=response.id)
        assert (refusal.value.status_code, refusal.value.code) == (503, "session_store_unavailable")


def test_an_answer_that_is_cut_off_says_so(openai_client: OpenAI, site: LiveSimulator) -> None:
    """`max_output_tokens` makes the response incomplete, plain and streamed."""
    site.site.update(reply="Forty bytes of text, or just ten tokens. And more.")
    plain = openai_client.responses.create(model=MODEL, input="Hello", max_output_tokens=10)
    *_, last = openai_client.responses.create(model=MODEL, input="Hello", max_output_tokens=10, stream=True)
    assert last.type == "response.incomplete"
    for response in (plain, last.response):
        assert response.output_text == "Forty bytes of text, or just ten tokens."
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_session_remembers_responses_too(openai_client: OpenAI, site: LiveSimulator) -> None:
    """X-Session-Id works as in every dialect; `user` opens no session here."""
    for text in ("I am Ada.", "Who am I?"):
        openai_client.responses.create(model=MODEL, input=text, extra_headers={"X-Session-Id": "s1"})
    assert site.site.messages[1].message.startswith("[User]: I am Ada.\n[Assistant]: ")
    raw = openai_client.responses.with_raw_response.create(model=MODEL, input="Hello", user="u1")
    assert raw.headers["x-session-action"] == "stateless"


def test_an_input_can_be_counted(openai_client: OpenAI) -> None:
    """The estimate grows with what is sent, tools included."""
    count = openai_client.responses.input_tokens.count
    few, more = count(input="x" * 40), count(input="x" * 40, tools=[WEATHER])
    assert (few.input_tokens, few.object) == (10, "response.input_tokens")
    assert more.input_tokens > 30


def test_functions_are_called_and_their_results_answered(scripted: Scripted) -> None:
    """A call comes plain and streamed the same; its result goes back with the call that it belongs to."""
    call = ToolCall("call_1", "weather", '{"city": "Paris"}')
    provider = _able(Completion("", "tool_calls", Usage(1, 1), (call,)))
    with scripted(provider) as client:
        plain = client.responses.create(model="able-model", input="Weather in Paris?", tools=[WEATHER])
        provider.answer = [
            Delta(reasoning="Hm."),
            Delta(tool_call=ToolCallDelta(0, "call_1", "weather")),
            Delta(tool_call=ToolCallDelta(0, arguments='{"city": ')),
            Delta(tool_call=ToolCallDelta(0, arguments='"Paris"}')),
            Delta(finish_reason="tool_calls"),
        ]
        with client.responses.stream(model="able-model", input="Weather in Paris?", tools=[WEATHER]) as stream:
            streamed = stream.get_final_response()
        for response in (plain, streamed):
            called = response.output[-1]
            assert isinstance(called, ResponseFunctionToolCall)
            assert (called.name, called.arguments, called.call_id) == ("weather", '{"city": "Paris"}', "call_1")
        assert [item.type for item in streamed.output] == ["reasoning", "function_call"]
        provider.answer = Completion("Rain.")
        final = client.responses.create(
            model="able-model",
            previous_response_id=streamed.id,
            input=[{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
            tools=[WEATHER],
        )
    assert final.output_text == "Rain."
    assert provider.requests[-1].messages == (
        Message("user", "Weather in Paris?"),
        Message("assistant", "", tool_calls=(call,), reasoning="Hm."),
        Message("tool", "rain", tool_call_id="call_1"),
    )
    tools = provider.requests[-1].tools
    assert tools is not None
    assert [tool.name for tool in tools.tools] == ["weather"]


def test_parse_gives_the_clients_own_types(scripted: Scripted) -> None:
    """`responses.parse` sends a schema and reads text and arguments back as pydantic models, streamed too."""

    class City(BaseModel):
        name: str

    provider = _able(Completion('{"name": "Paris"}'))
    with scripted(provider) as client:
        response = client.responses.parse(model="able-model", input="Where?", text_format=City)
        with client.responses.stream(model="able-model", input="Where?", text_format=City) as stream:
            streamed = stream.get_final_response()
        provider.answer = Completion("", "tool_calls", None, (ToolCall("c", "City", '{"name": "Rome"}'),))
        described = pydantic_function_tool(City)["function"]
        called = client.responses.parse(
            model="able-model",
            input="Where?",
            tools=[
                {
                    "type": "function",
                    "name": described["name"],
                    "parameters": described["parameters"],
                    "strict": True,
                }
            ],
        )
    assert response.output_parsed == streamed.output_parsed == City(name="Paris")
    assert provider.requests[0].output_format.schema == City.model_json_schema() | {"additionalProperties": False}
    assert called.output[0].type == "function_call"
    assert called.output[0].arguments == '{"name": "Rome"}'


def test_codex_is_served_unchanged(scripted: Scripted) -> None:
    """A request of the kind that Codex sends: whole history, freeform tool, namespaces, tools that nobody can run."""
    patch = "*** Begin Patch\n*** End Patch"
    provider = _able([Delta(tool_call=ToolCallDelta(0, "c2", "apply_patch", '{"input": "*** Begin Patch"}'))])
    with scripted(provider) as client:
        raw = client.responses.with_raw_response.create(
            model="able-model",
            stream=True,
            store=False,
            instructions="You are a coding agent.",
            include=["reasoning.encrypted_content"],
            prompt_cache_key="thread",
            parallel_tool_calls=False,
            reasoning={"effort": "medium", "summary": "auto"},
            tool_choice="auto",
            tools=[
                WEATHER,
                {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
                {"type": "web_search"},
                {"type": "local_shell"},
                {"type": "namespace", "name": "mcp__x", "description": "", "tools": [{**WEATHER, "name": "go"}]},
            ],
            input=[
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Do it."}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "opaque"},
                {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": patch},
                {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done."},
            ],
            extra_body={"client_metadata": {"x": "y"}},
        )
        *_, done, last = raw.parse()
    assert done.type == "response.output_item.done"
    assert done.item.to_dict() | {"id": ""} == {
        "id": "",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "c2",
        "name": "apply_patch",
        "input": "*** Begin Patch",
    }
    assert last.type == "response.completed"
    request = provider.requests[0]
    assert [message.role for message in request.messages] == ["system", "system", "user", "assistant", "tool"]
    assert request.tools is not None
    assert [tool.name for tool in request.tools.tools] == ["weather", "apply_patch", "mcp__x__go"]
    assert request.options == {"reasoning_effort": "medium"}


def test_a_model_that_only_writes_text_calls_a_custom_tool(scripted: Scripted) -> None:
    """What the gateway reads out of the text comes as the call of a tool that takes any text, plain and streamed."""

    def reply(request: CompletionRequest) -> Completion:
        tag = re.search(r"<(tool_call\w+)>", request.prompt.text)
        assert tag is not None
        call = json.dumps({"name": "shell", "arguments": {"input": "ls\n-l"}})
        return Completion(f"Let me look. <{tag[1]}>{call}</{tag[1]}>")

    shell: CustomToolParam = {"type": "custom", "name": "shell", "description": "Runs commands."}
    with scripted(ScriptedProvider("text", reply)) as client:
        plain = client.responses.create(model="text-model", input="Look.", tools=[shell])
        with client.responses.stream(model="text-model", input="Look.", tools=[shell]) as stream:
            streamed = stream.get_final_response()
    for response in (plain, streamed):
        said, called = response.output
        assert (response.output_text, said.type) == ("Let me look.", "message")
        assert called.type == "custom_tool_call"
        assert (called.name, called.input) == ("shell", "ls\n-l")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}, {**WEATHER, "parameters": {"type": 7}}]}, "tools[1].parameters"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": 7}}}}, "text.format"),
    ],
)
def test_a_schema_that_cant_be_used_is_named_by_its_place(
    openai_client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    """Also where other tools come before it, and in the words of this dialect."""
    with pytest.raises(BadRequestError, match=re.escape(param)) as refusal:
        openai_client.responses.create(model=MODEL, input="Hello", **fields)
    assert refusal.value.param == param


def test_tools_that_nobody_can_run_are_named(openai_client: OpenAI) -> None:
    """They don't keep the model from answering, and the header tells that they weren't there."""
    raw = openai_client.responses.with_raw_response.create(
        model=MODEL, input="Hello", tools=[{"type": "web_search"}], temperature=0.5
    )
    assert raw.headers["x-ignored-params"] == "temperature, tools.web_search"


def test_a_stream_that_breaks_off_raises(scripted: Scripted) -> None:
    """The events say that the response failed, and the SDK raises what happened; nothing is kept."""
    provider = _able([Delta("half of"), UpstreamTimeout("Too late.")])
    kinds = []
    with scripted(provider) as client:
        stream = client.responses.create(model="able-model", input="Hello", stream=True)
        created = next(stream)
        with pytest.raises(APIError, match=r"Too late\."):
            kinds += [event.type for event in stream]
        assert created.type == "response.created"
        with pytest.raises(NotFoundError):
            client.responses.retrieve(created.response.id)


def test_what_is_too_long_is_named_as_the_input(openai_client: OpenAI) -> None:
    """The error speaks of the field that was sent, streamed or not."""
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refusal:
            openai_client.responses.create(model=MODEL, input="x" * 2000, stream=stream)
        assert (refusal.value.param, refusal.value.code) == ("input", "context_length_exceeded")


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=msg_0", "after")]
)
def test_a_page_that_cant_be_is_refused(openai_client: OpenAI, gateway: LiveGateway, query: str, param: str) -> None:
    """Faults of the listing are named like all others."""
    response = openai_client.responses.create(model=MODEL, input="Hello")
    with gateway.client() as http:
        refused = http.get(f"/v1/responses/{response.id}/input_items?{query}")
        again = http.get(f"/v1/responses/{response.id}?stream=true")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (again.status_code, again.json()["error"]["param"]) == (400, "stream")
