"""Null means absent, in every field of every dialect that may be absent."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from app.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from app.api.completions.schemas import TextCompletionRequest
from app.api.gemini.schemas import GeminiCountRequest, GenerateContentRequest
from app.api.openai.schemas import ChatCompletionRequest
from app.api.responses.schemas import ResponsesRequest

REQUESTS = (
    *(ChatCompletionRequest, ResponsesRequest, TextCompletionRequest, MessagesRequest, CountTokensRequest),
    *(GenerateContentRequest, GeminiCountRequest),
)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _models() -> list[type[BaseModel]]:
    """The types of all requests, and of all that stands in them."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = list(REQUESTS)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            waiting += [inner for field in model.model_fields.values() for inner in _models_in(field.annotation)]
    return list(found)


def _faults(model: type[BaseModel], given: dict[str, Any]) -> set[object]:
    """The fields of a document that are wrong, besides those that are missing."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        return {fault["loc"][0] for fault in error.errors() if fault["type"] != "missing"}
    return set()


FIELDS = [(model, name) for model in _models() for name, field in model.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=[f"{model.__name__}.{name}" for model, name in FIELDS])
def test_a_field_that_may_be_absent_may_be_null(model: type[BaseModel], name: str) -> None:
    """Clients that dump their objects with nulls in them are understood."""
    alias = model.model_fields[name].alias or name
    assert alias not in _faults(model, {alias: None})


def test_requests_consist_of_many_types() -> None:
    """The walk through the types finds those deep within."""
    names = {model.__name__ for model in _models()}
    assert {"FunctionCall", "ImageUrl", "FunctionCallItem", "ContentBlock", "AllowedTools", "JsonSchema"} <= names
