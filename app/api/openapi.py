"""The API's own description, where it says more than FastAPI can see.

The dialects' routes read their bodies themselves (once, and fast), so their request models are added here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.docs import ErrorEnvelope

_REF = "#/components/schemas/{model}"


def install_openapi(app: FastAPI, *, public_paths: frozenset[str], wire_types: Sequence[type[BaseModel]]) -> None:
    """Make `/openapi.json` tell the whole truth: request models, keys, and our errors instead of FastAPI's.

    Args:
        public_paths: What needs no key.
        wire_types: The models that routes refer to without FastAPI's knowledge.
    """
    generate = app.openapi
    complete = partial(_completed, public_paths=public_paths, wire_types=wire_types)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _completed(
    document: dict[str, Any], public_paths: frozenset[str], wire_types: Sequence[type[BaseModel]]
) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "validation") for model in wire_types], ref_template=_REF)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "or as it is, in the header `x-api-key`"}
    }
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
