"""Tools and formats of the responses dialect with the official Python SDK."""

import json
import re
from typing import Any

import pytest
from openai import BadRequestError, OpenAI, pydantic_function_tool
from openai.types.responses import CustomToolParam, ResponseFunctionToolCall
from pydantic import BaseModel

from app.domain.chat import Completion, Delta, Message, ToolCall, ToolCallDelta, Usage
from app.providers.base import CompletionRequest
from tests.clients.responses import WEATHER, Scripted, able
from tests.clients.sdk import MODEL
from tests.scripted import ScriptedProvider


def test_functions_are_called_and_their_results_answered(scripted: Scripted) -> None:
    """A call comes plain and streamed the same; its result goes back with the call that it belongs to."""
    call = ToolCall("call_1", "weather", '{"city": "Paris"}')
    provider = able(Completion("", "tool_calls", Usage(1, 1), (call,)))
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

    provider = able(Completion('{"name": "Paris"}'))
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
    provider = able([Delta(tool_call=ToolCallDelta(0, "c2", "apply_patch", '{"input": "*** Begin Patch"}'))])
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
