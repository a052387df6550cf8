"""What clients that the tests don't install put on the wire, sent again byte by byte or as it was."""

from typing import Any

import httpx

_ASK = {"role": "user", "content": 'Call calculate with {"expression": "1+1"}'}


def test_a_schema_with_a_title_for_an_id(client: httpx.Client) -> None:
    """griptape gives its schemas such ids, for tools and answers; they say nothing that a model has to know."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
        "$id": "Parameters Schema",
        "$schema": "http://json-schema.org/draft-07/schema#",
    }
    tool = {"type": "function", "function": {"name": "calculate", "parameters": schema}}
    body: dict[str, Any] = {"model": "kimi", "messages": [_ASK], "tools": [tool], "tool_choice": "auto"}
    choice = client.post("/v1/chat/completions", json=body).raise_for_status().json()["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "calculate", "arguments": '{"expression": "1+1"}'}
    told = {"role": "user", "content": 'Repeat after me: {"expression": "2"}'}
    form = {
        "type": "json_schema",
        "json_schema": {"name": "Output", "strict": True, "schema": {**schema, "$id": "A b"}},
    }
    body = {"model": "kimi", "messages": [told], "response_format": form}
    choice = client.post("/v1/chat/completions", json=body).raise_for_status().json()["choices"][0]
    assert choice["message"]["content"] == '{"expression": "2"}'
