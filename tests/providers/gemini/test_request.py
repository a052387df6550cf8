"""What a Gemini upstream is sent."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from app.domain.chat import Image, Message, OutputFormat, Tool, ToolCall, ToolUse
from app.domain.errors import InvalidRequest
from app.providers.gemini.request import content_body
from tests.providers.openai_compatible.upstream import MODEL, wanted

USER = Message("user", "Hello")
HELLO = {"role": "user", "parts": [{"text": "Hello"}]}
BEGUN = {"role": "user", "parts": [{"text": "(The conversation begins.)"}]}
LOOK = ToolUse((Tool("look", "Looks.", {"properties": {}}), Tool("run")))
SIGNED = {"extra_content": {"google": {"thought_signature": "sig"}}}


def sent(*messages: Message, model: str = "gemini-2.0-flash", **fields: Any) -> dict[str, Any]:
    """The body as the upstream reads it."""
    request = replace(wanted(*messages, **fields), model=replace(MODEL, upstream_id=model))
    body: dict[str, Any] = json.loads(content_body(request))
    return body


@pytest.mark.parametrize(
    ("messages", "contents"),
    [
        ([USER], [HELLO]),
        ([Message("user", "")], [{"role": "user", "parts": [{"text": "(nothing)"}]}]),
        ([Message("assistant", "Hi!")], [BEGUN, {"role": "model", "parts": [{"text": "Hi!"}]}]),
        ([Message("assistant", "")], [BEGUN]),
        ([Message("system", "Be brief.")], [{"role": "user", "parts": [{"text": "Be brief."}]}]),
        ([USER, USER], [{"role": "user", "parts": [{"text": "Hello"}, {"text": "Hello"}]}]),
    ],
)
def test_turns_are_as_the_api_wants_them(messages: list[Message], contents: list[Any]) -> None:
    """The user speaks first, turns alternate, and none is empty."""
    assert sent(*messages)["contents"] == contents


def test_instructions_have_a_place_of_their_own() -> None:
    """All of them, wherever they stood; without any there is no such field."""
    body = sent(Message("system", "Be brief."), USER, Message("system", "Be kind."))
    assert body == {"systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}, "contents": [HELLO]}
    assert sent(USER) == {"contents": [HELLO]}


@pytest.mark.parametrize(
    ("model", "extras", "signature"),
    [
        ("gemini-3-pro-preview", SIGNED, "sig"),
        ("gemini-3-pro-preview", {"thought_signature": "sig"}, "sig"),
        ("gemini-3-pro-preview", None, "skip_thought_signature_validator"),
        ("gemini-2.5-pro", SIGNED, "sig"),
        ("gemini-2.5-pro", None, None),
    ],
)
def test_calls_results_and_signatures(model: str, extras: Any, signature: str | None) -> None:
    """Calls go back with their signatures, results under their functions' names, and behind nothing else."""
    calls = (ToolCall("c1", "look", '{"at":1}', extras), ToolCall("c2", "run", ""))
    results = (Message("tool", "A cat.", tool_call_id="c1"), Message("tool", '{"ok":true}', tool_call_id="c2"))
    said, asked = sent(USER, Message("assistant", "", tool_calls=calls), USER, *results, model=model)["contents"][1:]
    assert said["parts"][0].get("thoughtSignature") == signature
    assert "thoughtSignature" not in said["parts"][1]
    assert [part["functionCall"] for part in said["parts"]] == [
        {"name": "look", "args": {"at": 1}},
        {"name": "run", "args": {}},
    ]
    assert asked["parts"] == [
        {"functionResponse": {"name": "look", "response": {"result": "A cat."}}},
        {"functionResponse": {"name": "run", "response": {"ok": True}}},
        {"text": "Hello"},
    ]


def test_a_signed_text_goes_back_signed() -> None:
    """A message's own signature is its text's."""
    content = sent(USER, Message("assistant", "Hi.", extras=SIGNED))["contents"][1]
    assert content["parts"] == [{"text": "Hi.", "thoughtSignature": "sig"}]


@pytest.mark.parametrize(
    ("use", "names", "calling"),
    [
        (LOOK, ["look", "run"], {"mode": "AUTO"}),
        (replace(LOOK, choice="none"), ["look", "run"], {"mode": "NONE"}),
        (replace(LOOK, choice="required"), ["look", "run"], {"mode": "ANY"}),
        (replace(LOOK, choice="required", allowed=frozenset({"run"})), ["run"],
         {"mode": "ANY", "allowedFunctionNames": ["run"]}),
    ],
)  # fmt: skip
def test_tools_are_described_and_chosen(use: ToolUse, names: list[str], calling: Any) -> None:
    """Each choice has its form, and only what may be called is sent."""
    body = sent(USER, tools=use)
    [group] = body["tools"]
    assert [tool["name"] for tool in group["functionDeclarations"]] == names
    assert body["toolConfig"] == {"functionCallingConfig": calling}


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("data:image/PNG;base64,aGk=", {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        ("https://x.test/a.png?b", {"fileData": {"fileUri": "https://x.test/a.png?b", "mimeType": "image/png"}}),
        ("https://x.test/a", {"fileData": {"fileUri": "https://x.test/a"}}),
        ("data:image/png,hi", None),
    ],
)
def test_images(url: str, part: Any) -> None:
    """The image itself, or an address; whatever else is refused by its place."""
    message = Message("user", "[image]", parts=("Look:", Image(url, "messages[0].content[1]")))
    if part is None:
        with pytest.raises(InvalidRequest) as refused:
            sent(message)
        assert refused.value.param == "messages[0].content[1]"
    else:
        assert sent(message)["contents"][0]["parts"] == [{"text": "Look:"}, part]


@pytest.mark.parametrize(
    ("model", "fields", "config"),
    [
        ("gemini-2.0-flash", {"options": {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1, "user": "u"}},
         {"temperature": 0.5, "topP": 0.9, "topK": 5, "seed": 1}),
        ("gemini-2.0-flash", {"options": {"reasoning_effort": "high"}}, None),
        ("gemini-2.0-flash", {"max_tokens": 7, "stop": ("END",)}, {"maxOutputTokens": 7, "stopSequences": ["END"]}),
        ("gemini-2.0-flash", {"output_format": OutputFormat("json_object")}, {"responseMimeType": "application/json"}),
        ("gemini-2.0-flash", {"output_format": OutputFormat("json_schema", {"type": "object"})},
         {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}),
        ("gemini-2.5-flash", {}, {"thinkingConfig": {"includeThoughts": True}}),
        ("gemini-2.5-flash", {"options": {"reasoning_effort": "none"}},
         {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 0}}),
        ("models/gemini-2.5-pro", {"options": {"reasoning_effort": "none"}},
         {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 128}}),
        ("gemini-3-pro-preview", {"options": {"reasoning_effort": "low"}},
         {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "low"}}),
        ("gemini-3-pro-preview", {"options": {"thinking_config": {"thinkingLevel": "high"}}},
         {"thinkingConfig": {"thinkingLevel": "high"}}),
        ("gemini-2.5-flash-image", {}, None),
    ],
)  # fmt: skip
def test_options(model: str, fields: dict[str, Any], config: Any) -> None:
    """What the API knows is passed on under its names; models that think tell what."""
    assert sent(USER, model=model, **fields).get("generationConfig") == config


def test_one_answer_at_a_time() -> None:
    """Several answers are refused by the field that asks for them."""
    with pytest.raises(InvalidRequest) as refused:
        sent(USER, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_value")
