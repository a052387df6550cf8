"""The API's own description, where it says more than FastAPI can see.

Some routes read their bodies themselves (once, and fast), so their request models are added here.
"""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.api.completions.schemas import CompletionRequest
from app.api.docs import ErrorEnvelope
from app.api.openai.schemas import ChatCompletionRequest
from app.api.responses.schemas import ResponsesRequest

_MODELS = (ChatCompletionRequest, CompletionRequest, ResponsesRequest, ErrorEnvelope)
_REF = "#/components/schemas/{model}"


def install_openapi(app: FastAPI, *, public_paths: frozenset[str]) -> None:
    """Make `/openapi.json` tell the whole truth: request models, keys, and our errors instead of FastAPI's."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate(), public_paths)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _completed(document: dict[str, Any], public_paths: frozenset[str]) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    envelope = {"application/json": {"schema": {"$ref": _REF.format(model=ErrorEnvelope.__name__)}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path not in public_paths:
                operation["security"] = [{"apiKey": []}]
                operation["responses"].setdefault(
                    "401", {"description": "The API key is missing or unknown", "content": envelope}
                )
    return document
