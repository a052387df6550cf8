"""Wrong bodies are refused with OpenAI's codes, in every OpenAI dialect."""

from typing import Any

import pytest

from app.api.anthropic.dialect import MESSAGES
from app.api.completions.dialect import COMPLETIONS
from app.api.dialects import Dialect
from app.api.openai.dialect import CHAT_COMPLETIONS
from app.api.responses.dialect import RESPONSES
from app.domain.errors import InvalidRequest
from tests.api.reading import read

HELLO = {"role": "user", "content": "Hello"}
VALID: dict[str, dict[str, Any]] = {
    CHAT_COMPLETIONS.path: {"messages": [HELLO]},
    RESPONSES.path: {"input": "Hello"},
    COMPLETIONS.path: {"prompt": "Hello"},
}
ALL, SAMPLED = (CHAT_COMPLETIONS, RESPONSES, COMPLETIONS), (CHAT_COMPLETIONS, COMPLETIONS)
F = {"type": "function", "function": {"name": "f"}}


def _refusal(dialect: Dialect, fields: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(dialect, {**VALID[dialect.path], **fields}, max_messages=3)
    assert caught.value.status == 400
    return caught.value


CASES: list[tuple[tuple[Dialect, ...], dict[str, Any], str, str]] = [
    ((CHAT_COMPLETIONS,), {"messages": []}, "messages", "empty_array"),
    ((CHAT_COMPLETIONS,), {"messages": "Hello"}, "messages", "invalid_type"),
    ((CHAT_COMPLETIONS,), {"messages": [HELLO] * 4}, "messages", "array_above_max_length"),
    ((CHAT_COMPLETIONS,), {"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
    ((CHAT_COMPLETIONS,), {"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ((CHAT_COMPLETIONS,), {"messages": [{"role": "robot"}]}, "messages[0].role", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"messages": [{"role": 5}]}, "messages[0].role", "invalid_type"),
    ((CHAT_COMPLETIONS,), {"messages": [{**HELLO, "content": 5}]}, "messages[0].content", "invalid_type"),
    ((CHAT_COMPLETIONS,), {"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"response_format": "json"}, "response_format", "invalid_type"),
    ((CHAT_COMPLETIONS,), {"tools": [F], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"tools": [F], "tool_choice": 5}, "tool_choice", "invalid_type"),
    ((CHAT_COMPLETIONS,), {"tools": [F, F]}, "tools[1].function.name", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"tools": [{"function": {"name": ""}}]}, "tools[0].function.name", "empty_string"),
    (
        (CHAT_COMPLETIONS,),
        {"tools": [{"function": {"name": "x" * 257}}]},
        "tools[0].function.name",
        "string_above_max_length",
    ),
    ((CHAT_COMPLETIONS,), {"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"tools": [F] * 513}, "tools[1].function.name", "invalid_value"),
    ((CHAT_COMPLETIONS,), {"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
    ((CHAT_COMPLETIONS,), {"modalities": ["audio"]}, "modalities", "unsupported_value"),
    ((CHAT_COMPLETIONS, RESPONSES), {"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ((CHAT_COMPLETIONS, RESPONSES), {"top_logprobs": -1}, "top_logprobs", "integer_below_min_value"),
    ((RESPONSES,), {"input": None}, "input", "missing_required_parameter"),
    ((RESPONSES,), {"input": []}, "input", "missing_required_parameter"),
    ((RESPONSES,), {"input": 5}, "input", "invalid_type"),
    ((RESPONSES,), {"input": [HELLO] * 4}, "input", "array_above_max_length"),
    ((RESPONSES,), {"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_value"),
    ((RESPONSES,), {"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ((RESPONSES,), {"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
    ((RESPONSES,), {"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ((RESPONSES,), {"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ((RESPONSES,), {"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ((RESPONSES,), {"background": True}, "background", "unsupported_parameter"),
    ((COMPLETIONS,), {"prompt": None}, "prompt", "missing_required_parameter"),
    ((COMPLETIONS,), {"prompt": [[1, 2]]}, "prompt", "unsupported_value"),
    ((COMPLETIONS,), {"suffix": "x"}, "suffix", "unsupported_parameter"),
    (SAMPLED, {"n": 0}, "n", "integer_below_min_value"),
    (SAMPLED, {"n": 129}, "n", "integer_above_max_value"),
    (SAMPLED, {"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    (SAMPLED, {"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    (SAMPLED, {"stop": ["x"] * 17}, "stop", "array_above_max_length"),
    (SAMPLED, {"presence_penalty": 2.1}, "presence_penalty", "decimal_above_max_value"),
    (SAMPLED, {"frequency_penalty": -3}, "frequency_penalty", "decimal_below_min_value"),
    (SAMPLED, {"logit_bias": {"50256": 101}}, "logit_bias.50256", "decimal_above_max_value"),
    (ALL, {"temperature": "hot"}, "temperature", "invalid_type"),
    (ALL, {"temperature": 9}, "temperature", "decimal_above_max_value"),
    (ALL, {"temperature": -0.1}, "temperature", "decimal_below_min_value"),
    (ALL, {"top_p": "3"}, "top_p", "decimal_above_max_value"),
    (ALL, {"model": 5}, "model", "invalid_type"),
    (ALL, {"stream": "perhaps"}, "stream", "invalid_type"),
]


@pytest.mark.parametrize(
    ("dialect", "fields", "param", "code"),
    [(dialect, fields, param, code) for dialects, fields, param, code in CASES for dialect in dialects],
)
def test_what_is_wrong_is_said_by_code_and_param(
    dialect: Dialect, fields: dict[str, Any], param: str, code: str
) -> None:
    """Each kind of fault has the code that OpenAI has for it, and names its field."""
    refusal = _refusal(dialect, fields)
    assert (refusal.param, refusal.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"temperature": "hot"},
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        ),
        (
            {"messages": [{"role": "user", "content": {}}]},
            "Invalid type for 'messages[0].content': expected a string or an array, but got an object instead.",
        ),
        (
            {"temperature": 9},
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 9 instead.",
        ),
        (
            {"max_tokens": 0},
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            {"messages": []},
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            {"tool_choice": "perhaps"},
            "Invalid value: 'perhaps'. Supported values are: 'none', 'auto' and 'required'.",
        ),
    ],
)
def test_the_words_are_openais(fields: dict[str, Any], message: str) -> None:
    """People and programs that know OpenAI's sentences understand these."""
    assert _refusal(CHAT_COMPLETIONS, fields).message == message


@pytest.mark.parametrize(
    ("dialect", "body", "place"),
    [
        (CHAT_COMPLETIONS, {"input": "Hello"}, "/v1/responses"),
        (CHAT_COMPLETIONS, {"messages": [HELLO, {"type": "function_call_output", "output": "x"}]}, "/v1/responses"),
        (CHAT_COMPLETIONS, {"messages": [HELLO], "tools": [{"type": "web_search"}]}, "/v1/responses"),
        (RESPONSES, {"messages": [HELLO]}, "/v1/chat/completions"),
    ],
)
def test_what_belongs_to_another_address_is_told_which(dialect: Dialect, body: dict[str, Any], place: str) -> None:
    """A request in the form of the other dialect is refused with the address that takes it."""
    with pytest.raises(InvalidRequest, match=place):
        read(dialect, body)


@pytest.mark.parametrize("dialect", ALL)
def test_options_at_their_bounds_are_taken(dialect: Dialect) -> None:
    """Bounds are inclusive, and null means absent."""
    for fields in (
        {"temperature": 2, "top_p": 1},
        {"temperature": 0, "top_p": 0},
        {"temperature": None, "top_p": None},
    ):
        assert read(dialect, {**VALID[dialect.path], **fields}).calls


@pytest.mark.parametrize(
    ("dialect", "field"),
    [
        (CHAT_COMPLETIONS, "max_tokens"),
        (CHAT_COMPLETIONS, "max_completion_tokens"),
        (RESPONSES, "max_output_tokens"),
        (COMPLETIONS, "max_tokens"),
    ],
)
@pytest.mark.parametrize("value", [-1, "-1"])
def test_minus_one_is_no_limit(dialect: Dialect, field: str, value: object) -> None:
    """Some clients say so that an answer may be as long as it gets."""
    assert read(dialect, {**VALID[dialect.path], field: value}).calls[0].max_tokens is None


@pytest.mark.parametrize(("field", "value"), [("temperature", 9), ("temperature", -1), ("top_p", 3)])
def test_anthropics_options_have_bounds_too(field: str, value: float) -> None:
    """In its own form, with the field in the message."""
    body = {"model": "m", "max_tokens": 9, "messages": [HELLO], field: value}
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        read(MESSAGES, body)
