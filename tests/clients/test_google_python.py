"""Google's Python SDK against a running gateway, when all goes well."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel

from app.domain.chat import Completion, ToolCall, Usage
from app.domain.chat import Message as DomainMessage
from simulator.live import LiveSimulator
from tests.clients.anthropic_sdk import able, gateway_with, in_parts
from tests.clients.google_sdk import connect, parts_of, texts_of
from tests.live import LiveGateway, until

MODEL = "kimi-k2-instruct-0905"
ABLE = "able-model"
CALLS = (ToolCall("call_1", "weather", '{"city":"Köln"}'), ToolCall("call_2", "weather", '{"city":"Rome"}'))
TOOL_ANSWER = Completion("Let me see.", "tool_calls", Usage(50, 20, 10, 5), CALLS, "Two cities.")
FUNCTION = types.FunctionDeclaration(
    name="weather",
    description="The weather of a city.",
    parameters=types.Schema(
        type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
    ),
)
CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def gemini(gateway: LiveGateway) -> Iterator[genai.Client]:
    """Google's SDK with Alice's key, at a gateway with default settings."""
    with connect(gateway) as client:
        yield client


def asked(client: genai.Client, *, stream: bool, **arguments: Any) -> list[types.GenerateContentResponse]:
    """The answer, in one part or in several."""
    if stream:
        return list(client.models.generate_content_stream(**arguments))
    return [client.models.generate_content(**arguments)]


@STREAMED
def test_an_answer(gemini: genai.Client, site: LiveSimulator, stream: bool) -> None:
    """It is the site's reply, of the asked model, with its end and its counts in the last part."""
    site.site.update(reply="Good day, 👋🏽 and goodbye.")
    answers = asked(gemini, stream=stream, model=MODEL, contents="Hello")
    assert texts_of(answers) == "Good day, 👋🏽 and goodbye."
    assert len(answers) > 3 or not stream
    assert {answer.model_version for answer in answers} == {MODEL}
    last = answers[-1]
    assert last.candidates
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata
    assert (last.usage_metadata.prompt_token_count, last.usage_metadata.candidates_token_count) == (2, 8)
    assert last.usage_metadata.total_token_count == 10
    assert last.response_id


@STREAMED
def test_where_an_answer_ends(gemini: genai.Client, site: LiveSimulator, stream: bool) -> None:
    """It ends before a stop sequence, or after as many tokens as were asked for."""
    site.site.update(reply="one two three")
    stops = types.GenerateContentConfig(stop_sequences=["nine", " three"])
    assert texts_of(asked(gemini, stream=stream, model=MODEL, contents="Count", config=stops)) == "one two"
    site.site.update(reply="x" * 100)
    short = types.GenerateContentConfig(max_output_tokens=5)
    answers = asked(gemini, stream=stream, model=MODEL, contents="Count", config=short)
    assert texts_of(answers) == "x" * 20
    assert answers[-1].candidates
    assert answers[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_a_chat(gemini: genai.Client, site: LiveSimulator) -> None:
    """The SDK keeps the conversation, its streamed turns piece by piece; the site gets each turn as one."""
    site.site.update(reply="Good day, Ada.")
    chat = gemini.chats.create(model=MODEL, config=types.GenerateContentConfig(system_instruction="Be brief."))
    assert chat.send_message("I'm Ada.").text == "Good day, Ada."
    assert texts_of(list(chat.send_message_stream("And?"))) == "Good day, Ada."
    chat.send_message("Who am I?")
    sent = site.site.messages[-1].message
    assert "Be brief." in sent
    assert sent.count("Good day, Ada.") == 2
    assert sent.index("I'm Ada.") < sent.index("And?") < sent.index("Who am I?")


def test_a_session_by_its_header(gemini: genai.Client, site: LiveSimulator) -> None:
    """Two lone turns under one X-Session-Id are one conversation."""
    options = types.HttpOptions(headers={"X-Session-Id": "ada"})
    for text in ("My name is Ada.", "What is my name?"):
        config = types.GenerateContentConfig(http_options=options)
        answer = gemini.models.generate_content(model=MODEL, contents=text, config=config)
    assert answer.sdk_http_response
    assert answer.sdk_http_response.headers
    assert answer.sdk_http_response.headers["x-session-action"] == "continued"
    assert "My name is Ada." in site.site.messages[-1].message


@STREAMED
def test_a_round_of_functions(site: LiveSimulator, log_stream: TextIO, stream: bool) -> None:
    """Thoughts, text and calls come as parts; sent back with results they are what the model said before."""
    provider = able(in_parts(TOOL_ANSWER) if stream else TOOL_ANSWER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[FUNCTION])],
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=500),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    question = types.Content(role="user", parts=[types.Part(text="Weather?")])
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        answers = asked(client, stream=stream, model=ABLE, contents=[question], config=config)
        said = types.Content(role="model", parts=[part for answer in answers for part in parts_of(answer)])
        calls = [part.function_call for part in said.parts or () if part.function_call]
        results = [
            types.Part.from_function_response(name=str(call.name), response={"result": f"Rain in {call.args['city']}."})
            for call in calls
            if call.args
        ]
        provider.answer = Completion("Rain.")
        back = types.Content(role="user", parts=results)
        last = client.models.generate_content(model=ABLE, contents=[question, said, back], config=config)
    assert (texts_of(answers, thought=True), texts_of(answers)) == ("Two cities.", "Let me see.")
    assert [(call.id, call.args) for call in calls] == [("call_1", {"city": "Köln"}), ("call_2", {"city": "Rome"})]
    counts = answers[-1].usage_metadata
    assert counts
    assert (counts.prompt_token_count, counts.cached_content_token_count) == (50, 10)
    assert (counts.candidates_token_count, counts.thoughts_token_count) == (15, 5)
    assert last.text == "Rain."
    first, second = provider.requests
    assert first.tools is not None
    [tool] = first.tools.tools
    assert tool.parameters == {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert first.options["reasoning_effort"] == "low"
    assert second.messages == (
        DomainMessage("user", "Weather?"),
        DomainMessage("assistant", "Let me see.", tool_calls=CALLS, reasoning="Two cities."),
        DomainMessage("tool", "Rain in Köln.", name="weather", tool_call_id="call_1"),
        DomainMessage("tool", "Rain in Rome.", name="weather", tool_call_id="call_2"),
    )


def test_functions_that_the_sdk_calls_itself(gemini: genai.Client, site: LiveSimulator) -> None:
    """The web chat, which knows no tools, calls one all the same, and the SDK answers it without being asked."""

    def weather(city: str) -> str:
        """The weather of a city."""
        site.site.update(reply=f"It rains in {city}.")
        return "Rain."

    call = '<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city":"Rome"}<|tool_call_end|>'
    site.site.update(reply=f"<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>")
    answer = gemini.models.generate_content(
        model=MODEL, contents="Rome?", config=types.GenerateContentConfig(tools=[weather])
    )
    assert answer.text == "It rains in Rome."
    assert "Rain." in site.site.messages[-1].message


class Weather(BaseModel):
    """What a model is to answer."""

    city: str
    rain: bool


def test_an_answer_by_a_schema(site: LiveSimulator, log_stream: TextIO) -> None:
    """The SDK sends a schema in Google's form, which reaches the model as JSON Schema, and reads the answer by it."""
    provider = able(Completion('{"city":"Rome","rain":true}'))
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Weather)
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        answer = client.models.generate_content(model=ABLE, contents="Rome?", config=config)
    assert answer.parsed == Weather(city="Rome", rain=True)
    [request] = provider.requests
    assert request.output_format.kind == "json_schema"
    assert request.output_format.schema is not None
    assert request.output_format.schema["properties"]["rain"]["type"] == "boolean"  # type: ignore[index]


def test_an_image_reaches_a_model_that_can_see(site: LiveSimulator, log_stream: TextIO) -> None:
    """Its base64, which the SDK writes as for addresses, becomes the usual one."""
    provider = able(Completion("A dot."))
    image = types.Part.from_bytes(data=b"\xfb\xff\xbe", mime_type="image/gif")
    with gateway_with(provider, site, log_stream) as gateway, connect(gateway) as client:
        client.models.generate_content(model=ABLE, contents=[image, "What is this?"])
    [shown] = provider.requests[0].messages[0].images
    assert shown.url == "data:image/gif;base64,+/++"


def test_a_silent_model_is_covered(site: LiveSimulator, log_stream: TextIO) -> None:
    """Signs of life keep a stream open in both of its forms; the SDK, which knows no comments, reads over them."""
    provider = able(in_parts(Completion("At last.")))
    provider.hold.clear()
    settings = {"stream_grace_seconds": 0.02, "heartbeat_seconds": 0.02}
    address = f"/v1beta/models/{ABLE}:streamGenerateContent"
    with (
        gateway_with(provider, site, log_stream, **settings) as gateway,
        connect(gateway) as client,
        gateway.client() as http,
        http.stream("POST", address, json={"contents": CONTENTS}) as reply,
        ThreadPoolExecutor() as threads,
    ):
        answers = threads.submit(asked, client, stream=True, model=ABLE, contents="Hello")
        lines = reply.iter_lines()
        silence = [next(lines) for _ in range(3)]
        until(lambda: _heartbeats(http.get("/metrics").text) > 5)
        gateway.loop.call_soon_threadsafe(provider.hold.set)
        documents = json.loads("".join([*silence, *lines]))
        assert texts_of(answers.result()) == "At last."
    assert silence == ["[", "", ""]
    parts = [document["candidates"][0]["content"]["parts"][0]["text"] for document in documents]
    assert "".join(parts) == "At last."


def _heartbeats(metrics: str) -> float:
    found = re.search(r"^kimi_heartbeats_total ([\d.]+)", metrics, re.MULTILINE)
    return float(found[1]) if found else 0


def test_tokens_are_counted(gemini: genai.Client, site: LiveSimulator) -> None:
    """The count grows with the contents, and nothing is sent to the site."""
    assert gemini.models.count_tokens(model=MODEL, contents="x" * 400).total_tokens == 100
    assert site.site.messages == ()


def test_the_models(gemini: genai.Client, gateway: LiveGateway) -> None:
    """The SDK finds every model that OpenAI's clients find, over as many pages as it takes, and each by its name."""
    with gateway.client() as http:
        known = [f"models/{model['id']}" for model in http.get("/v1/models").json()["data"]]
    assert [model.name for model in gemini.models.list()] == known
    assert [model.name for model in gemini.models.list(config={"page_size": 1})] == known
    model = gemini.models.get(model=MODEL)
    assert (model.name, model.supported_actions) == (f"models/{MODEL}", ["generateContent", "countTokens"])
