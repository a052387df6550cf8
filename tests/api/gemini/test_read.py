"""From Gemini's wire to what it means."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.dialects import EVENTS, Exchange
from app.api.gemini.dialect import CONTENT, STREAMED_CONTENT
from app.api.gemini.errors import google_fault
from app.api.gemini.read import count_tokens
from app.api.gemini.schemas import GeminiCountRequest
from app.api.wire.body import parse_body
from app.domain.chat import PLAIN_TEXT, ChatCall, Message, OutputFormat, SessionRef, Tool, ToolUse
from app.domain.errors import GatewayError, InvalidRequest
from tests.api.reading import read as read_as
from tests.domain.strategies import UNTIMED

CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]
CITY = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}
CITY_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Of a city.", "parameters": CITY}
CLOCK = {"name": "clock", "parametersJsonSchema": {"type": "object"}}


def read(headers: dict[bytes, bytes] | None = None, /, **fields: Any) -> Exchange:
    """What is made of a request."""
    return read_as(CONTENT, {"contents": CONTENTS, **fields}, headers, max_messages=10)


def call(headers: dict[bytes, bytes] | None = None, /, **fields: Any) -> ChatCall:
    """What a request means."""
    (found,) = read(headers, **fields).calls
    return found


def test_the_smallest_request() -> None:
    """Contents are all that it takes: the address names the model."""
    assert call() == ChatCall(model="kimi", messages=(Message("user", "Hi"),))
    assert call(model="models/another").model == "kimi"


@pytest.mark.parametrize(
    "config",
    [
        {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 3,
            "maxOutputTokens": "99",
            "stopSequences": ["END", ""],
            "seed": 7,
            "candidateCount": 2,
            "presencePenalty": 1,
            "frequencyPenalty": None,
        },
        {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 3,
            "max_output_tokens": 99,
            "stop_sequences": ["END"],
            "seed": 7,
            "candidate_count": 2,
            "presence_penalty": 1,
        },
    ],
    ids=["camelCase", "snake_case"],
)
def test_what_is_honoured(config: dict[str, Any]) -> None:
    """Every field has two names, and 64-bit numbers may be texts."""
    name = "generationConfig" if "topP" in config else "generation_config"
    system = "systemInstruction" if "topP" in config else "system_instruction"
    found = read(**{name: config, system: {"parts": [{"text": "Be brief."}]}})
    assert found.calls[0] == ChatCall(
        model="kimi",
        messages=(Message("system", "Be brief."), Message("user", "Hi")),
        max_tokens=99,
        stop=("END",),
        options={"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7, "presence_penalty": 1},
        n=2,
    )
    assert "generationConfig.topP" in found.ignored


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"includeThoughts": True}, None),
        ({"thinkingBudget": -1}, None),
        ({"thinkingBudget": 0}, "none"),
        ({"thinking_budget": 1000}, "low"),
        ({"thinkingBudget": 8000}, "medium"),
        ({"thinkingBudget": 9000}, "high"),
        ({"thinkingLevel": "high"}, "high"),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
    ],
)
def test_thinking(thinking: dict[str, Any], effort: str | None) -> None:
    """How much is to be thought is told in the words that other upstreams know."""
    assert call(generationConfig={"thinkingConfig": thinking}).options.get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ({"responseMimeType": "text/plain"}, PLAIN_TEXT),
        ({"responseModalities": [1]}, PLAIN_TEXT),
        (
            {"responseMimeType": "application/json"},
            OutputFormat("json_object", place="generationConfig.responseMimeType"),
        ),
        (
            {"responseMimeType": "application/json", "responseSchema": CITY},
            OutputFormat("json_schema", CITY_SCHEMA, place="generationConfig.responseSchema"),
        ),
        (
            {"response_mime_type": "application/json", "response_json_schema": {"type": "array"}},
            OutputFormat("json_schema", {"type": "array"}, place="generationConfig.responseJsonSchema"),
        ),
    ],
)
def test_the_form_of_the_answer(config: dict[str, Any], form: OutputFormat) -> None:
    """A MIME type and a schema, in either form."""
    assert call(generationConfig=config).output_format == form


def test_tools() -> None:
    """Functions of all tools are one list, with their schemas as JSON Schema; Google's own are left out and named."""
    found = read(tools=[{"functionDeclarations": [WEATHER]}, {"googleSearch": {}, "function_declarations": [CLOCK]}])
    place = "tools[{}].functionDeclarations[0].{}"
    weather = Tool("weather", "Of a city.", CITY_SCHEMA, place=place.format(0, "parameters"))
    clock = Tool("clock", "", {"type": "object"}, place=place.format(1, "parametersJsonSchema"))
    assert found.calls[0].tools == ToolUse((weather, clock))
    assert found.unserved == ["tools.googleSearch"]


@pytest.mark.parametrize(
    ("calling", "choice", "allowed"),
    [
        ({"mode": "AUTO"}, "auto", None),
        ({"mode": "any"}, "required", None),
        ({"mode": 2}, "required", None),
        ({"mode": "NONE"}, "none", None),
        ({"mode": "ANY", "allowedFunctionNames": ["clock"]}, "required", frozenset({"clock"})),
        ({"mode": "VALIDATED", "allowed_function_names": ["clock"]}, "auto", frozenset({"clock"})),
        ({}, "auto", None),
    ],
)
def test_the_choice_of_tools(calling: dict[str, Any], choice: str, allowed: frozenset[str] | None) -> None:
    """Whether a function is to be called, and which."""
    use = call(tools=[{"functionDeclarations": [WEATHER, CLOCK]}], toolConfig={"functionCallingConfig": calling}).tools
    assert use is not None
    assert (use.choice, use.allowed) == (choice, allowed)


def test_only_the_header_opens_a_session() -> None:
    """There is no user in this dialect."""
    assert call({b"x-session-id": b"ada"}).session == SessionRef("ada", "header")
    assert call().session is None


def test_what_has_no_effect_is_named() -> None:
    """But for what nobody misses."""
    found = read(
        safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        labels={"a": "b"},
        unknown=1,
        generationConfig={"speechConfig": {}, "responseLogprobs": None},
        toolConfig={"retrievalConfig": {}},
    )
    assert found.unserved == ["generationConfig.speechConfig", "toolConfig.retrievalConfig", "unknown"]


def test_how_it_is_streamed() -> None:
    """The address says whether, and its query in which form."""
    request = {"contents": CONTENTS}
    assert not read().stream
    for query, kind in ((b"alt=sse", EVENTS), (b"a=b&%24alt=sse", EVENTS), (b"", b"application/json")):
        found = read_as(STREAMED_CONTENT, request, query=query)
        assert (found.stream, found.stream_type) == (True, kind)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"contents": []}, "contents"),
        ({"contents": None}, "contents"),
        ({"contents": CONTENTS * 11}, "contents"),
        ({"contents": [{"role": "wizard", "parts": [{"text": "Hi"}]}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
        (
            {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "a/b", "data": ""}}]}},
            "systemInstruction.parts[0]",
        ),
        ({"generationConfig": {"temperature": 3}}, "generationConfig.temperature"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"stopSequences": ["x"] * 17}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"responseModalities": ["TEXT", "image"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        ({"cachedContent": "cachedContents/1"}, "cachedContent"),
        ({"tools": [{"googleSearch": {}}]}, "tools"),
        ({"tools": [{"functionDeclarations": [CLOCK, CLOCK]}]}, "tools[0].functionDeclarations[1].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "toolConfig.functionCallingConfig.mode"),
        (
            {
                "tools": [{"functionDeclarations": [CLOCK]}],
                "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["x"]}},
            },
            "toolConfig.functionCallingConfig.allowedFunctionNames",
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOMETIMES"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"toolConfig": {"functionCallingConfig": {"mode": 9}}}, "toolConfig.functionCallingConfig.mode"),
    ],
)
def test_a_fault_is_named_by_its_place(fields: dict[str, Any], place: str) -> None:
    """What is wrong is said with the place at which it is, in the names of this dialect."""
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == place


def test_tokens_are_counted() -> None:
    """Contents, or a whole request with its instruction and tools; nothing can't be counted."""

    def counted(**fields: Any) -> int:
        body = json.dumps(fields).encode()
        return count_tokens(parse_body(GeminiCountRequest, body, fault=google_fault), max_messages=10)

    long = [{"role": "user", "parts": [{"text": "x" * 400}]}]
    assert counted(contents=long) == 100
    whole = {"model": "models/kimi", "contents": long, "tools": [{"functionDeclarations": [WEATHER]}]}
    assert counted(generateContentRequest=whole) > 115
    with pytest.raises(InvalidRequest):
        counted()


_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "parts",
                    "text",
                    "inlineData",
                    "functionCall",
                    "functionResponse",
                    "name",
                    "args",
                    "response",
                    "mode",
                    "functionDeclarations",
                    "functionCallingConfig",
                    "thinkingConfig",
                    "responseSchema",
                    "type",
                    "properties",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@UNTIMED
@given(
    st.dictionaries(
        st.sampled_from(["contents", "tools", "toolConfig", "systemInstruction", "generationConfig", "cachedContent"]),
        _VALUES,
    )
)
def test_whatever_comes_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Nothing but an error of ours comes of a request that makes no sense."""
    with contextlib.suppress(GatewayError):
        read(**fields)
