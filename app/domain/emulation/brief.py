"""A tool in few words: what it is called, what it takes, and the first sentence on what it does."""

import re
from collections.abc import Mapping

from msgspec.structs import replace

from app.domain.chat import Tool

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s)|[。！？]|$)", re.MULTILINE)
# Keywords whose members have names of the client's own: a parameter may be called `description`.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
# Keywords whose values are the client's data.
_DATA = frozenset({"enum", "const", "default"})


def brief(tool: Tool) -> Tool:
    """The tool for a model with little room. Its calls are the same: only what explains them is left out."""
    words = tool.description or str(tool.parameters.get("description") or "")
    first = _SENTENCE.search(words.strip())
    return replace(tool, description=first[0].strip() if first else "", parameters=_without_words(tool.parameters))


def _without_words(schema: Mapping[str, object]) -> dict[str, object]:
    return {name: _part(name, value) for name, value in schema.items() if name != "description"}


def _part(keyword: str, value: object) -> object:
    if keyword in _DATA:
        return value
    if isinstance(value, Mapping):
        if keyword in _NAMED:
            return {name: _without_words(part) if isinstance(part, Mapping) else part for name, part in value.items()}
        return _without_words(value)
    if isinstance(value, list):
        return [_without_words(item) if isinstance(item, Mapping) else item for item in value]
    return value
