"""Tools and JSON on a model that answers text only, through a running gateway."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, TextIO

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from app.domain.chat import Completion, ToolCall
from app.domain.prompt import PromptLimit
from app.providers.base import CompletionRequest
from simulator.live import LiveSimulator
from tests.live import ALICE_KEY, LiveGateway
from tests.scripted import ScriptedProvider, gateway_with

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION: Any = {"role": "user", "content": "How is the weather in Rome?"}
ROME = {"city": "Rome"}


class Town(BaseModel):
    name: str
    inhabitants: int


def call(request: CompletionRequest, arguments: object = ROME, name: str = "get_weather") -> str:
    """A tool call in the form that the prompt asks for."""
    tag = re.search(r"<(tool_call\w+)>", request.prompt.text)
    assert tag is not None
    return f"<{tag[1]}>{json.dumps({'name': name, 'arguments': arguments})}</{tag[1]}>"


def says(*replies: str | Callable[[CompletionRequest], str]) -> Callable[[CompletionRequest], Completion]:
    """One reply after the other, the last one for ever."""
    coming = chain(replies, repeat(replies[-1]))

    def answer(request: CompletionRequest) -> Completion:
        reply = next(coming)
        return Completion(reply if isinstance(reply, str) else reply(request))

    return answer


@pytest.fixture
def text_model() -> ScriptedProvider:
    """A model that answers text only."""
    return ScriptedProvider("text")


@pytest.fixture
def gateway(site: LiveSimulator, log_stream: TextIO, text_model: ScriptedProvider) -> Iterator[LiveGateway]:
    with gateway_with(site, log_stream, text_model) as running:
        yield running


@pytest.fixture
def sdk(gateway: LiveGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY, max_retries=0) as client:
        yield client


def ask(sdk: openai.OpenAI, **fields: Any) -> ChatCompletion:
    answer = sdk.chat.completions.create(**{"model": "r", "messages": [QUESTION], "tools": [WEATHER], **fields})
    assert isinstance(answer, ChatCompletion)
    return answer


def called(answer: ChatCompletion) -> list[tuple[str, object]]:
    """The calls in an answer that is nothing else."""
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    functions = [made.function for made in choice.message.tool_calls or () if made.type == "function"]
    return [(function.name, json.loads(function.arguments)) for function in functions]


def test_a_tool_is_called_and_its_result_is_used(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """The model's call comes out as a tool call, and the next request carries call and result to the model."""
    text_model.answer = says(lambda request: "Let me look. " + call(request), "It is sunny.")
    choice = ask(sdk).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert choice.message.tool_calls is not None
    made = choice.message.tool_calls[0]
    assert made.type == "function"
    assert (made.function.name, json.loads(made.function.arguments)) == ("get_weather", ROME)
    result = {"role": "tool", "tool_call_id": made.id, "content": "sunny, 21 degrees"}
    last = ask(sdk, messages=[QUESTION, choice.message.model_dump(exclude_none=True), result]).choices[0]
    assert (last.finish_reason, last.message.content, last.message.tool_calls) == ("stop", "It is sunny.", None)
    assert "sunny, 21 degrees" in text_model.requests[1].prompt.text
    assert call(text_model.requests[1]).replace(" ", "") in text_model.requests[1].prompt.text.replace(" ", "")


def test_calls_are_streamed(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """The SDK's accumulation of the chunks gives the same message as the whole answer, several calls included."""
    text_model.answer = says(lambda request: "Two. " + call(request) + call(request, {"city": "Oslo"}))
    with sdk.chat.completions.stream(
        model="r",
        messages=[QUESTION],
        tools=[WEATHER],
        stream_options={"include_usage": True},
    ) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert (final.choices[0].finish_reason, message.content) == ("tool_calls", "Two.")
    assert [json.loads(made.function.arguments) for made in message.tool_calls or ()] == [ROME, {"city": "Oslo"}]
    assert len({made.id for made in message.tool_calls or ()}) == 2
    assert final.usage is not None
    assert final.usage.completion_tokens > 0


def test_the_older_functions_are_answered_in_their_form(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """Who sends `functions` gets a `function_call`, whole and streamed, and may send it back."""
    text_model.answer = says(call)
    old: dict[str, Any] = {"functions": [WEATHER["function"]], "tools": openai.NOT_GIVEN}
    choice = ask(sdk, **old).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call is not None
    assert json.loads(choice.message.function_call.arguments) == ROME
    with sdk.chat.completions.create(
        model="r",
        messages=[QUESTION],
        functions=[WEATHER["function"]],
        stream=True,
    ) as stream:
        chunks = list(stream)
    calls = [chunk.choices[0].delta.function_call for chunk in chunks]
    assert "".join(part.arguments or "" for part in calls if part) == choice.message.function_call.arguments
    assert chunks[-1].choices[0].finish_reason == "function_call"
    back = [
        QUESTION,
        choice.message.model_dump(exclude_none=True),
        {"role": "function", "name": "get_weather", "content": "sun"},
    ]
    ask(sdk, messages=back, **old)
    assert "[Tool get_weather]: sun" in text_model.requests[-1].prompt.text


def test_an_unusable_call_is_asked_for_once_more(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """Wrong arguments come back to the model with what is wrong; usage counts both tries."""
    text_model.answer = says(lambda request: call(request, {"town": "Rome"}), call)
    answer = ask(sdk)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert "city" in text_model.requests[1].prompt.text.rpartition("can't be used")[2]
    # Both together have the time of one.
    assert text_model.requests[0].deadline is not None
    assert len({request.deadline for request in text_model.requests}) == 1
    assert answer.usage is not None
    both = sum(len(request.prompt.text) for request in text_model.requests)
    assert abs(answer.usage.prompt_tokens - both / 4) < 3


def test_a_call_that_stays_unusable_is_given_as_it_is_if_none_was_required(
    sdk: openai.OpenAI, text_model: ScriptedProvider
) -> None:
    """With arguments that don't fit it is a call all the same, which the client checks; otherwise it is text."""
    text_model.answer = says(lambda request: call(request, {"town": "Rome"}))
    assert called(ask(sdk)) == [("get_weather", {"town": "Rome"})]
    text_model.answer = says(lambda request: call(request, name="get_rain"))
    choice = ask(sdk).choices[0]
    assert choice.finish_reason == "stop"
    assert "get_rain" in (choice.message.content or "")
    assert len(text_model.requests) == 4


def test_where_there_is_no_room_to_ask_again_the_first_reply_counts(
    sdk: openai.OpenAI, site: LiveSimulator, log_stream: TextIO, text_model: ScriptedProvider
) -> None:
    """A reminder that doesn't fit is no reason to lose what the model said."""
    text_model.answer = says("Sunny.")
    long_question: Any = [{"role": "user", "content": "How is the weather in Rome? " * 30}]
    ask(sdk, messages=long_question)
    tight = ScriptedProvider(
        "tight",
        says(lambda request: call(request, {"town": "Rome"})),
        limit=PromptLimit(text_model.requests[0].prompt.size),
    )
    with (
        gateway_with(site, log_stream, tight) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY, max_retries=0) as client,
    ):
        assert called(ask(client, messages=long_question)) == [("get_weather", {"town": "Rome"})]
    assert len(tight.requests) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"tools": openai.NOT_GIVEN, "response_format": {"type": "json_object"}},
    ],
)
def test_what_must_have_a_form_and_has_none_is_an_error(
    sdk: openai.OpenAI, text_model: ScriptedProvider, wanted: dict[str, Any]
) -> None:
    """After the second try it is a 502 with a code of its own, never an answer of another form."""
    text_model.answer = says("I would rather not.")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(sdk, **wanted)
    assert (caught.value.status_code, caught.value.code) == (502, "invalid_json_from_upstream")
    assert len(text_model.requests) == 2


def test_no_tool_is_offered_if_none_may_be_called(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """With `tool_choice: none` the model hears nothing of tools, and what looks like a call is text."""
    text_model.answer = says('{"name": "get_weather", "arguments": {"city": "Rome"}}')
    choice = ask(sdk, tool_choice="none").choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert text_model.requests[0].prompt.text == QUESTION["content"]


def test_one_call_at_a_time_if_the_client_wants_it(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """`parallel_tool_calls: false` lets the first call through only."""
    text_model.answer = says(lambda request: call(request) + call(request, {"city": "Oslo"}))
    made = ask(sdk, parallel_tool_calls=False).choices[0].message.tool_calls
    assert made is not None
    assert len(made) == 1


def test_a_schema_is_kept_to(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """`parse()` gets its object, out of a reply with a fence, after a first one that didn't fit."""
    text_model.answer = says('{"name": "Rome"}', 'Here:\n```json\n{"name": "Rome", "inhabitants": 2750000}\n```')
    answer = sdk.chat.completions.parse(model="r", messages=[QUESTION], response_format=Town)
    assert answer.choices[0].message.parsed == Town(name="Rome", inhabitants=2750000)
    assert "inhabitants" in text_model.requests[0].prompt.text


def test_json_is_streamed(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """A streamed JSON answer is the JSON alone."""
    text_model.answer = says('Sure! {"a": [1, 2]} There you are.')
    with sdk.chat.completions.create(
        model="r",
        messages=[QUESTION],
        response_format={"type": "json_object"},
        stream=True,
    ) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert json.loads(text) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {
                "tools": [{"type": "function", "function": {"name": f"tool_{n}"}} for n in range(500)],
                "tool_choice": "required",
            },
            "tools",
        ),
        (
            {
                "tools": openai.NOT_GIVEN,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"enum": [str(n) for n in range(2000)]}},
                },
            },
            "response_format",
        ),
    ],
)
def test_definitions_that_do_not_fit_are_refused(sdk: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    """What is demanded and too large to be told is a 400 that names the field; nothing is cut in silence."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, **fields)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)


BIG_TOOL: Any = {"type": "function", "function": {"name": "big", "description": "Does everything, " * 500}}
BIG_SCHEMA: Any = {"name": "n", "schema": {"type": "object", "description": "Anything. " * 500}}


def test_tools_that_do_not_fit_are_left_out_and_named(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """The model is told of those that fit, and the answer's header names the others, whole and streamed."""
    text_model.answer = says(call)
    for stream in (False, True):
        with sdk.chat.completions.with_streaming_response.create(
            model="r", messages=[QUESTION], tools=[BIG_TOOL, WEATHER], stream=stream
        ) as response:
            body = response.read().decode()
        assert response.headers["x-ignored-params"] == "tools.big"
        assert "get_weather" in body
        assert "Does everything" not in text_model.requests[-1].prompt.text
    text_model.answer = says("Sunny.")
    whole = sdk.chat.completions.with_raw_response.create(model="r", messages=[QUESTION], tools=[BIG_TOOL])
    assert whole.headers["x-ignored-params"] == "tools.big"
    assert text_model.requests[-1].prompt.text == QUESTION["content"]


def test_forms_of_json_that_do_not_fit_give_way(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """A schema that need not fit exactly is not told if it is too large: then any JSON is the answer."""
    text_model.answer = says('{"city": "Rome"}')
    response = sdk.chat.completions.with_raw_response.create(
        model="r", messages=[QUESTION], response_format={"type": "json_schema", "json_schema": BIG_SCHEMA}
    )
    assert response.headers["x-ignored-params"] == "response_format"
    assert "Anything." not in text_model.requests[-1].prompt.text
    assert "JSON" in text_model.requests[-1].prompt.text
    text_model.answer = says("Sunny.")
    full: Any = [{"role": "user", "content": "?" * text_model.models[0].prompt_limit.size}]
    response = sdk.chat.completions.with_raw_response.create(
        model="r", messages=full, response_format={"type": "json_object"}
    )
    assert response.headers["x-ignored-params"] == "response_format"
    assert text_model.requests[-1].prompt.text == full[0]["content"]


def test_an_operator_may_want_no_tool_to_be_left_out(
    site: LiveSimulator, log_stream: TextIO, text_model: ScriptedProvider
) -> None:
    """With TOOLS_THAT_DO_NOT_FIT=refuse such a request is a 400 that names the field."""
    with (
        gateway_with(site, log_stream, text_model, tools_that_do_not_fit="refuse") as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY, max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        ask(client, tools=[BIG_TOOL])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "tools")


def test_an_unusable_schema_is_refused_by_its_place(sdk: openai.OpenAI) -> None:
    """A schema that is none is the client's fault, and the tool at fault is named."""
    broken = {"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, tools=[WEATHER, broken])
    assert caught.value.param == "tools[1]"


def test_calls_are_remembered_in_sessions(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """A session that called a tool goes on with what the user says next; a repeated request gets the same call."""
    text_model.answer = says(call, "As I said.")
    key = {"Idempotency-Key": "k1"}
    first = ask(sdk, user="ada", extra_headers=key).choices[0].message
    again = ask(sdk, user="ada", extra_headers=key).choices[0].message
    assert again == first
    ask(sdk, user="ada", messages=[{"role": "user", "content": "And?"}])
    assert '"city"' in text_model.requests[-1].prompt.text


def test_a_native_model_gets_the_tools_themselves(site: LiveSimulator, log_stream: TextIO) -> None:
    """Where the upstream knows tools and formats, they are passed through and nothing is written into the prompt."""
    made = Completion("", "tool_calls", tool_calls=(ToolCall("c1", "get_weather", '{"city":"Rome"}'),))
    native = ScriptedProvider("native", made, abilities=["messages", "tools", "json_object"])
    with (
        gateway_with(site, log_stream, native) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY) as sdk,
    ):
        choice = ask(sdk, response_format={"type": "json_object"}).choices[0]
    assert [made.id for made in choice.message.tool_calls or ()] == ["c1"]
    assert choice.message.content is None
    request = native.requests[0]
    assert request.tools is not None
    assert request.output_format.kind == "json_object"
    assert [message.text for message in request.messages] == [QUESTION["content"]]


def test_a_model_with_messages_but_without_tools_is_told_in_words(site: LiveSimulator, log_stream: TextIO) -> None:
    """Instructions come as a system message, earlier calls and results as text, a second try as further messages."""
    chatty = ScriptedProvider(
        "chatty",
        says(lambda request: call(request, {}), call),
        limit=PromptLimit(8000, "tokens"),
        abilities=["messages"],
    )
    history = [
        QUESTION,
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "no city <tool_call>{}"},
    ]
    with (
        gateway_with(site, log_stream, chatty) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY) as sdk,
    ):
        choice = ask(sdk, messages=history).choices[0]
    assert choice.finish_reason == "tool_calls"
    first, second = chatty.requests
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "user"]
    assert not any(message.tool_calls for message in first.messages)
    # What the model could repeat as a call is made harmless here, too.
    assert first.messages[3].text.endswith("no city (tool_call>{}")
    assert [message.role for message in second.messages[4:]] == ["assistant", "user"]


MADE = Completion("", "tool_calls", tool_calls=(ToolCall("c1", "get_weather", '{"city":"Rome"}'),))
TOWN: Any = {"type": "json_schema", "json_schema": {"name": "town", "schema": Town.model_json_schema()}}
CALLED: Any = [
    QUESTION,
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]


@pytest.fixture
def talks(site: LiveSimulator, log_stream: TextIO) -> Iterator[tuple[openai.OpenAI, ScriptedProvider]]:
    """A client, and a model that takes messages and calls tools, but knows no JSON schema."""
    model = ScriptedProvider("talks", limit=PromptLimit(8000, "tokens"), abilities=["messages", "tools"])
    with (
        gateway_with(site, log_stream, model) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY, max_retries=0) as client,
    ):
        yield client, model


def test_a_model_that_calls_tools_still_does_when_json_is_wanted(
    talks: tuple[openai.OpenAI, ScriptedProvider],
) -> None:
    """Its own calls are the answer, earlier ones stay what they are, and only the form of the text is asked for."""
    sdk, model = talks
    model.answer = MADE
    choice = ask(sdk, messages=CALLED, response_format=TOWN).choices[0]
    assert (choice.finish_reason, [made.id for made in choice.message.tool_calls or ()]) == ("tool_calls", ["c1"])
    (request,) = model.requests
    assert request.tools is not None
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[0].text.startswith("If you call no tool, answer with JSON")
    model.answer = says("Rome!", '{"name": "Rome", "inhabitants": 1}')
    assert json.loads(ask(sdk, response_format=TOWN).choices[0].message.content or "") == {
        "name": "Rome",
        "inhabitants": 1,
    }


def test_a_reply_that_was_cut_off_is_no_reason_to_ask_again(talks: tuple[openai.OpenAI, ScriptedProvider]) -> None:
    """A client that allows too few tokens gets what there is, and `length`, as from any other model."""
    sdk, model = talks
    model.answer = Completion('{"name": "Ro', "length")
    choice = ask(sdk, response_format=TOWN, max_tokens=5).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("length", '{"name": "Ro')
    assert len(model.requests) == 1


def test_an_empty_reply_is_not_sent_back(talks: tuple[openai.OpenAI, ScriptedProvider]) -> None:
    """A reply that was all thoughts is asked for again without an empty message, which some upstreams refuse."""
    sdk, model = talks
    model.answer = says("", '{"name": "Rome", "inhabitants": 1}')
    ask(sdk, response_format=TOWN)
    assert [message.role for message in model.requests[1].messages] == ["system", "user", "user"]


def test_a_stop_text_ends_words_and_no_call(site: LiveSimulator, log_stream: TextIO) -> None:
    """A model that is told of tools in words isn't told of stop texts, which would cut calls; its words end there."""
    chatty = ScriptedProvider("chatty", says(call, "Sunny}, I say."), limit=PromptLimit(8000), abilities=["messages"])
    with (
        gateway_with(site, log_stream, chatty) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY) as sdk,
    ):
        called = ask(sdk, stop=["}"]).choices[0]
        said = ask(sdk, stop=["}"]).choices[0]
    assert [made.function.name for made in called.message.tool_calls or () if made.type == "function"] == [
        "get_weather"
    ]
    assert (said.finish_reason, said.message.content) == ("stop", "Sunny")
    assert [request.stop for request in chatty.requests] == [(), ()]


def test_earlier_calls_are_told_in_words_to_a_model_without_tools(site: LiveSimulator, log_stream: TextIO) -> None:
    """Also when the request itself has no tools any more, as when an agent has its work summed up."""
    chatty = ScriptedProvider("chatty", limit=PromptLimit(8000, "tokens"), abilities=["messages"])
    with (
        gateway_with(site, log_stream, chatty) as gateway,
        openai.OpenAI(base_url=gateway.openai_url, api_key=ALICE_KEY) as sdk,
    ):
        ask(sdk, messages=CALLED, tools=openai.NOT_GIVEN)
    (request,) = chatty.requests
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    assert "get_weather" in request.messages[1].text
    assert not any(message.tool_calls for message in request.messages)


def test_an_ending_by_calls_without_any_is_none(talks: tuple[openai.OpenAI, ScriptedProvider]) -> None:
    """An agent that is told of calls and finds none would not know what to do."""
    sdk, model = talks
    model.answer = Completion("Sunny.", "tool_calls")
    assert ask(sdk).choices[0].finish_reason == "stop"


def test_a_provider_gets_nothing_that_its_model_does_not_know(sdk: openai.OpenAI, text_model: ScriptedProvider) -> None:
    """Tools, formats and further fields are in the prompt or nowhere: no provider has to look for what it can't use."""
    text_model.answer = says('{"name": "Rome", "inhabitants": 1}')
    ask(sdk, response_format=TOWN, temperature=0.5)
    (request,) = text_model.requests
    assert (request.tools, request.output_format.kind, request.options) == (None, "text", {})
