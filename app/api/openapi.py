"""The API's own description, where it says more than FastAPI can see."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Path
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from app.api.dialects import Dialect
from app.api.wire.body import AnswerModel

_REF = "#/components/schemas/{model}"


class ErrorObject(AnswerModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(AnswerModel):
    """The body of every error."""

    error: ErrorObject


def openai_responses(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Responses with an OpenAI error object, by HTTP status, each with what it means."""
    return {status: {"model": ErrorEnvelope, "description": text} for status, text in descriptions.items()}


ANSWER_ERRORS = openai_responses(
    {
        400: "The request is wrong (`param` says where) or too long (`context_length_exceeded`)",
        401: "The API key is missing or unknown",
        404: "`model_not_found`, or `session_not_found` with `X-Session-Strict`",
        409: "`session_busy`: another request of this session is running",
        413: "The body is too large",
        415: "The body is compressed in a way that can't be read",
        429: "A limit of the key, its project or the gateway is reached, or the upstream asks for fewer requests",
        500: "A fault of the gateway",
        502: "The upstream's answer makes no sense",
        503: "The upstream can't be used at the moment",
        504: "The upstream didn't answer in time",
    }
)
REQUEST_HEADERS: Mapping[str, str] = {
    "X-Session-Id": "the session to remember this turn in",
    "X-Session-Reset": "`true` starts the session anew",
    "X-Session-Strict": "`true` answers 404 instead of starting an expired session anew",
    "Idempotency-Key": "the same for the same turn sent again within a minute, which then gets the same answer",
    "X-Provider": "the only provider that may answer",
    "Cache-Control": "`max-age=N` takes an answer that the same request got within the last N seconds, else keeps this "
    "one; `no-cache` takes none, `no-store` keeps none either; where `ANSWER_CACHE_SECONDS` is set",
    "X-Request-ID": "8 to 128 of A-Z a-z 0-9 . _ -; comes back in the response and in the logs",
}


_HEADER: Mapping[str, object] = {"in": "header", "required": False, "schema": {"type": "string"}}

# The order in which groups of endpoints are shown.
TAGS: Sequence[Mapping[str, str]] = (
    {"name": "chat", "description": "OpenAI's chat completions"},
    {"name": "responses", "description": "OpenAI's responses, which are kept"},
    {"name": "messages", "description": "Anthropic's messages"},
    {"name": "gemini", "description": "Gemini's generateContent, and its list of models"},
    {"name": "completions", "description": "OpenAI's legacy completions"},
    {"name": "embeddings", "description": "Vectors of texts, and ranking; passed on to an upstream with an API"},
    {"name": "moderations", "description": "Judging texts; passed on likewise"},
    {"name": "images", "description": "Making and changing images; passed on likewise"},
    {"name": "audio", "description": "Speech to text and back; passed on likewise"},
    {"name": "models", "description": "What can be asked"},
    {"name": "sessions", "description": "What is remembered of conversations"},
    {"name": "keys", "description": "What a key may do, and what it has used"},
    {"name": "operations", "description": "State and metrics"},
)


def request_doc(
    body: type[BaseModel],
    examples: Mapping[str, object],
    headers: Mapping[str, str] = REQUEST_HEADERS,
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The description of an endpoint that reads its body itself.

    Args:
        examples: Bodies that any gateway answers with 200, by what they show.
        parameters: What its address says.
    """
    shown = {
        f"example-{place}": {"summary": name, "value": value} for place, (name, value) in enumerate(examples.items(), 1)
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=body.__name__)}, "examples": shown}},
        },
        "parameters": [
            *parameters,
            *({**_HEADER, "name": name, "description": description} for name, description in headers.items()),
        ],
    }


def example(value: str, description: str | None = None) -> Any:
    """A parameter of an address, with a value that can be tried."""
    return Path(description=description, openapi_examples={"example-1": {"value": value}})


def path_parameter(name: str, value: str, description: str) -> dict[str, Any]:
    """A parameter of an address that is read by the endpoint itself, with a value that can be tried."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": description,
        "examples": {"example-1": {"value": value}},
    }


def describe(router: APIRouter, dialect: Dialect) -> None:
    """Have FastAPI describe the address at which a dialect answers calls; they don't come by this route."""

    async def described() -> None:
        """The answer of a model, whole or as server-sent events."""
        raise AssertionError(f"{dialect.path} is answered by its own endpoint.")

    content = {"description": "The answer, or its events where it is streamed", "content": {"text/event-stream": {}}}
    router.add_api_route(
        dialect.path,
        described,
        methods=["POST"],
        summary=dialect.summary,
        tags=[dialect.tag],
        name=f"answer_{dialect.tag}",
        response_model=None,
        responses={200: {"model": dialect.answer, **content}, **dialect.responses},
        openapi_extra=request_doc(dialect.request, dialect.examples, dialect.headers, dialect.parameters),
    )


def install_openapi(
    app: FastAPI,
    path: str | None,
    described: Callable[[], Sequence[BaseRoute]],
    wire_types: Sequence[type[BaseModel]],
    public_paths: frozenset[str],
    elsewhere: Sequence[Callable[[], Mapping[str, Any]]] = (),
    login: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Serve a complete description of the API: request bodies, keys, and our errors instead of FastAPI's.

    Args:
        path: Where; None if it is told elsewhere.
        described: Makes routes that the app doesn't have, only to be described: they take longer to make than all
            others.
        wire_types: The models that routes read by themselves, without FastAPI's knowledge.
        public_paths: Addresses that need no key.
        elsewhere: Make the descriptions of what is answered by applications of their own, to be told here as well.
        login: The security schemes that together do instead of a key, where a login does.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version=app.openapi_version,
                description=app.description,
                tags=app.openapi_tags,
                routes=[*described(), *app.routes],
            )
            document = _completed(document, wire_types, public_paths, login or {})
            for describe_more in elsewhere:
                more = describe_more()
                document["paths"] |= more["paths"]
                document["components"]["schemas"] |= more["components"]["schemas"]
            app.openapi_schema = document
        return app.openapi_schema

    def send(request: Request) -> JSONResponse:
        # No coroutine: it takes a good part of a second, once, in which no stream would go on.
        document = app.openapi()
        if prefix := request.scope.get("root_path", "").rstrip("/"):
            document = {**document, "servers": [{"url": prefix}]}
        return JSONResponse(document)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
    if path is not None:
        app.add_route(path, send, include_in_schema=False)


def _completed(
    document: dict[str, Any],
    wire_types: Sequence[type[BaseModel]],
    public_paths: frozenset[str],
    login: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    document.setdefault("tags", [*TAGS])
    models: list[type[BaseModel]] = [ErrorEnvelope, *wire_types]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "or as it is, in the header `x-api-key`"},
        **login,
    }
    security: list[dict[str, list[str]]] = [{"apiKey": []}]
    if login:
        security.append({name: [] for name in login})
    refusal = "The API key is missing or unknown" + (", or the login has ended" if login else "")
    envelope = {"application/json": {"schema": {"$ref": _REF.format(model=ErrorEnvelope.__name__)}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path not in public_paths:
                operation["security"] = security
                operation["responses"].setdefault("401", {"description": refusal, "content": envelope})
    return document
