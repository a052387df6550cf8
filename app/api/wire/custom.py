"""Custom tools, whose input is text of any form: functions with one text to the model, which knows no others. Pure."""

import json
from collections.abc import Mapping

from app.domain.chat import Tool

_PARAMETERS: Mapping[str, object] = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "the whole input, as it is"}},
    "required": ["input"],
    "additionalProperties": False,
}


def custom_tool(name: str, description: str, form: object) -> Tool:
    """The function that stands for a custom tool.

    Args:
        form: The `format` of its input. A grammar is told to the model in words.
    """
    return Tool(name, _with_grammar(description, form), _PARAMETERS)


def custom_arguments(text: str) -> str:
    """A custom tool's input, as the arguments of a function."""
    return json.dumps({"input": text}, ensure_ascii=False)


def custom_input(arguments: str) -> str:
    """A custom tool's input, from the arguments of a function."""
    try:
        given = json.loads(arguments)["input"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return arguments
    return given if isinstance(given, str) else arguments


def _with_grammar(description: str, form: object) -> str:
    if not isinstance(form, Mapping) or form.get("type") != "grammar":
        return description
    # Chat completions have it in an object of its own, responses beside the type.
    inner = form.get("grammar")
    grammar = inner if isinstance(inner, Mapping) else form
    if not grammar.get("definition"):
        return description
    told = f"The input must fit this {grammar.get('syntax', 'lark')} grammar:\n{grammar['definition']}"
    return f"{description}\n{told}" if description else told
