"""The same conversation through every pair of dialect and kind of upstream, with the vendors' own SDKs."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.genai import types

from app.assembly.app import create_app
from app.observe import logging as logs
from app.settings import load_settings
from simulator.live import LiveSimulator, running
from tests.clients import anthropic_sdk, google_sdk, sdk
from tests.live import ALICE_KEY, LiveGateway, serving

KINDS = ("openai", "anthropic", "gemini")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA: Any = {"type": "object", "properties": {"at": {"type": "integer"}}}
FILE = """
[[providers]]
name = "openai-like"
base_url = "{url}/v1"
models = [{{ id = "openai", abilities = ["tools", "images"] }}]

[[providers]]
name = "anthropic-like"
kind = "anthropic"
base_url = "{url}/v1"
models = ["anthropic"]

[[providers]]
name = "gemini-like"
kind = "gemini"
base_url = "{url}"
models = [{{ id = "gemini", upstream_id = "gemini-3-test" }}]
"""
Said = tuple[str, str, list[tuple[str, Any]], tuple[int, int]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveGateway, LiveSimulator]]:
    """One gateway in front of one simulated upstream of all kinds."""
    with running() as upstream:
        file = tmp_path_factory.mktemp("pairs") / "providers.toml"
        file.write_text(FILE.format(url=upstream.base_url))
        values: dict[str, object] = {
            "_env_file": None,
            "api_master_key": ALICE_KEY,
            "chat_page_url": upstream.page_url,
            "providers_file": file,
            "max_loop_lag_seconds": 30,  # tests may run on a busy machine
        }
        app = create_app(load_settings(**values))
        logs.configure("ERROR", "json", io.StringIO())
        with serving(app) as gateway:
            yield gateway, upstream


def by_chat(gateway: LiveGateway, model: str, *, stream: bool) -> Said:
    """In chat completions: the conversation asked for, then what is thought, said, called and counted."""
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, _image_url()]},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "A cat."},
        {"role": "user", "content": "And now?"},
    ]
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    arguments: Any = {"model": model, "messages": messages, "tools": tools}
    with sdk.connect(gateway) as client:
        if stream:
            with client.chat.completions.stream(**arguments, stream_options={"include_usage": True}) as parts:
                answer: Any = parts.get_final_completion()
        else:
            answer = client.chat.completions.create(**arguments)
    message, usage = answer.choices[0].message, answer.usage
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    counts = (usage.prompt_tokens, usage.completion_tokens)
    return getattr(message, "reasoning_content", ""), message.content or "", calls, counts


def by_responses(gateway: LiveGateway, model: str, *, stream: bool) -> Said:
    """The same in responses."""
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, _input_image()]},
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "A cat."},
        {"role": "user", "content": "And now?"},
    ]
    tools: Any = [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}]
    arguments: Any = {"model": model, "instructions": "Be brief.", "input": items, "tools": tools}
    with sdk.connect(gateway) as client:
        if stream:
            with client.responses.stream(**arguments) as parts:
                for _ in parts:
                    pass
                answer: Any = parts.get_final_response()
        else:
            answer = client.responses.create(**arguments)
    calls = [(item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"]
    thoughts = [
        part.text for item in answer.output if item.type == "reasoning" for part in item.content or item.summary
    ]
    return "".join(thoughts), answer.output_text, calls, (answer.usage.input_tokens, answer.usage.output_tokens)


def by_messages(gateway: LiveGateway, model: str, *, stream: bool) -> Said:
    """The same in Anthropic's messages."""
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    call: Any = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}
    result: Any = {"type": "tool_result", "tool_use_id": "c1", "content": "A cat."}
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me look."}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    arguments: Any = {
        "model": model,
        "max_tokens": 2000,
        "system": "Be brief.",
        "messages": messages,
        "tools": [{"name": "look", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    with anthropic_sdk.connect(gateway) as client:
        if stream:
            with client.messages.stream(**arguments) as parts:
                answer: Any = parts.get_final_message()
        else:
            answer = client.messages.create(**arguments)
    thoughts = "".join(block.thinking for block in answer.content if block.type == "thinking")
    text = "".join(block.text for block in answer.content if block.type == "text")
    calls = [(block.name, block.input) for block in answer.content if block.type == "tool_use"]
    return thoughts, text, calls, (answer.usage.input_tokens, answer.usage.output_tokens)


def by_content(gateway: LiveGateway, model: str, *, stream: bool) -> Said:
    """The same in Gemini's contents."""
    image = types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png")
    call = types.Part.from_function_call(name="look", args={"at": 1})
    result = types.Part.from_function_response(name="look", response={"result": "A cat."})
    contents = [
        types.UserContent([types.Part(text="What is it?"), image]),
        types.ModelContent([types.Part(text="Let me look."), call]),
        types.UserContent([result, types.Part(text="And now?")]),
    ]
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        tools=[types.Tool(function_declarations=[{"name": "look", "parameters_json_schema": SCHEMA}])],
        thinking_config=types.ThinkingConfig(include_thoughts=True),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    arguments: Any = {"model": model, "contents": contents, "config": config}
    with google_sdk.connect(gateway) as client:
        if stream:
            answers = list(client.models.generate_content_stream(**arguments))
        else:
            answers = [client.models.generate_content(**arguments)]
    parts = [part for answer in answers for part in google_sdk.parts_of(answer)]
    calls = [(str(part.function_call.name), part.function_call.args) for part in parts if part.function_call]
    usage = answers[-1].usage_metadata
    counts = (usage.prompt_token_count or 0, usage.candidates_token_count or 0) if usage else (0, 0)
    return google_sdk.texts_of(answers, thought=True), google_sdk.texts_of(answers), calls, counts


def _image_url() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def _input_image() -> dict[str, Any]:
    return {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "ask", [by_chat, by_responses, by_messages, by_content], ids=["chat", "responses", "messages", "content"]
)
def test_nothing_is_lost_that_the_pair_can_carry(
    both: tuple[LiveGateway, LiveSimulator], ask: Callable[..., Said], kind: str, stream: bool
) -> None:
    """Instructions, image, earlier call and result get there; thoughts, text, calls and counts come back."""
    gateway, upstream = both
    upstream.site.api.reset()
    upstream.site.update(api_reasoning="Let me think.", reply="A dog, 🐕 now.", api_tool_calls=[])
    thoughts, text, calls, counts = ask(gateway, kind, stream=stream)
    [request] = upstream.site.api.requests
    sent = json.dumps(request)
    assert all(part in sent for part in ("Be brief.", "What is it?", "Let me look.", "A cat.", "And now?"))
    # Google's SDK has base64 in its form for addresses, and a Gemini upstream gets it as it came.
    assert PIXEL in sent.replace("-", "+").replace("_", "/")
    assert sent.index("Let me look.") < sent.index("A cat.") < sent.index("And now?")
    assert '"at": 1' in sent or '\\"at\\":1' in sent
    assert (thoughts, text, calls) == ("Let me think.", "A dog, 🐕 now.", [])
    assert min(counts) > 0
    upstream.site.update(api_tool_calls=[{"name": "look", "arguments": {"at": 2}}, {"name": "look", "arguments": {}}])
    thoughts, text, calls, _ = ask(gateway, kind, stream=stream)
    assert (thoughts, text, calls) == ("Let me think.", "", [("look", {"at": 2}), ("look", {})])
