"""What the model is told."""

import json

from app.domain.chat import OutputFormat, Tool
from tests.domain.emulation.tools import CLOSE, NOW, OPEN, WEATHER, emulator, json_only

_SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "description": "ünï " * 200}


def test_tools_are_told_in_few_words() -> None:
    """One weather tool takes fewer than 350 characters in all: most of the limit is left for the conversation."""
    told = emulator(WEATHER).instructions
    assert "get_weather(city: string, days?: integer, exact?: boolean) - Current weather" in told
    assert f'{OPEN}{{"name":"NAME","arguments":{{...}}}}{CLOSE}' in told
    assert len(told) < 350


def test_the_choice_and_the_number_of_calls_are_told() -> None:
    """Whether a call is wanted, which one, and how many, is said."""
    assert "only if it is needed" in emulator().instructions
    assert "At most one call" in emulator(parallel=False).instructions
    assert "must call at least one tool" in emulator(choice="required").instructions
    assert "must call one tool" in emulator(choice="required", parallel=False).instructions
    assert "must call now." in emulator(choice="required", allowed=frozenset({"now"})).instructions


def test_a_schema_for_the_answer_is_told_whole() -> None:
    """The schema is there to the last character, as compact JSON."""
    told = json_only(_SCHEMA).instructions
    assert told.endswith(json.dumps(_SCHEMA, ensure_ascii=False, separators=(",", ":")))
    assert json_only().instructions == (
        "Answer with one JSON object and nothing else: no words around it, no code fence."
    )


def test_the_format_is_told_only_where_it_counts() -> None:
    """Beside tools it is for the final answer; with a call that must be made it is left out."""
    output_format = OutputFormat("json_object")
    assert "If you call no tool, answer with one JSON" in emulator(NOW, output_format=output_format).instructions
    assert "JSON object" not in emulator(NOW, choice="required", output_format=output_format).instructions
    assert "JSON object" in emulator(NOW, choice="none", output_format=output_format).instructions


def test_the_larger_part_is_at_fault() -> None:
    """What is blamed when the instructions don't fit is the field that takes most of them."""
    assert emulator(NOW).param == "tools"
    assert json_only().param == "response_format"
    assert emulator(NOW, output_format=OutputFormat("json_schema", _SCHEMA)).param == "response_format"
    assert emulator(Tool("t", "d" * 999), output_format=OutputFormat("json_object")).param == "tools"
