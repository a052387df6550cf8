"""OpenAI's chat completions, and its list of models."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.api.dialects import Dialect, DialectServices
from app.api.error_responses import OPENAI_ERRORS
from app.api.openai.read import read
from app.api.openai.schemas import ChatCompletion, ChatCompletionRequest, ModelList, ModelObject
from app.api.openapi import ANSWER_ERRORS, REQUEST_HEADERS, example, openai_responses
from app.api.request import caller_of
from app.domain.errors import ModelNotFound
from app.providers.registry import Target

_TRUE = ("true", "1", "yes", "on")


def _routes(services: DialectServices) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"])
    registry, started = services.registry, int(time.time())

    @router.get("/models", summary="List the models", response_model=ModelList, response_model_exclude_none=True)
    async def list_models(
        request: Request,
        all: Annotated[str, Query(description="`true` lists them as `provider/model`, too")] = "",  # noqa: A002
    ) -> ModelList:
        """Every model once, and the operator's own names."""
        names = registry.model_ids(doubles=all.lower() in _TRUE, caller=caller_of(request))
        return ModelList(data=[_model_object(name, target, started) for name, target in names])

    @router.get(
        "/models/{model:path}",
        summary="Look up a model",
        response_model=ModelObject,
        response_model_exclude_none=True,
        responses=openai_responses({404: "`model_not_found`"}),
    )
    async def get_model(request: Request, model: Annotated[str, example("kimi")]) -> ModelObject:
        """One model, by an id that may contain slashes."""
        if not model:
            raise ModelNotFound("The model '' does not exist.", param="model")
        return _model_object(model, registry.resolve(model, caller=caller_of(request))[0], started)

    return router


def _model_object(name: str, target: Target, created: int) -> ModelObject:
    limit = target.spec.told_limit
    return ModelObject(
        id=name,
        name=name,
        description=target.description,
        created=created,
        owned_by=target.spec.owned_by,
        context_length=None if limit is None else limit.size,
        context_unit=None if limit is None else limit.unit,
        provider=target.provider.name,
        abilities=target.spec.told_abilities,
    )


_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_EXAMPLES = {
    "A message, remembered by its user": {
        "model": "kimi",
        "user": "docs",
        "messages": [{"role": "user", "content": "Hello, my name is Ada."}],
    },
    "The next message of the same user": {
        "model": "kimi",
        "user": "docs",
        "messages": [{"role": "user", "content": "What is my name?"}],
    },
    "A streamed answer": {"model": "kimi", "stream": True, "messages": [{"role": "user", "content": "Hello!"}]},
    "A tool": {
        "model": "kimi",
        "messages": [{"role": "user", "content": 'Call get_weather with {"city": "Paris"}'}],
        "tools": [_WEATHER],
    },
}

CHAT_COMPLETIONS = Dialect(
    name="openai",
    path="/v1/chat/completions",
    summary="Answer a conversation",
    tag="chat",
    request=ChatCompletionRequest,
    answer=ChatCompletion,
    examples=_EXAMPLES,
    responses=ANSWER_ERRORS,
    headers=REQUEST_HEADERS,
    read=read,
    routes=_routes,
    errors=OPENAI_ERRORS,
)
