"""OpenAI's legacy completions."""

from fastapi import APIRouter

from app.api.completions.errors import COMPLETIONS_ERRORS
from app.api.completions.read import read
from app.api.completions.schemas import TextCompletion, TextCompletionRequest
from app.api.dialects import Dialect
from app.api.openapi import ANSWER_ERRORS, REQUEST_HEADERS

COMPLETIONS = Dialect(
    name="completions",
    path="/v1/completions",
    summary="Complete a text",
    tag="completions",
    request=TextCompletionRequest,
    answer=TextCompletion,
    examples={"A text": {"model": "kimi", "prompt": "Once upon a time", "max_tokens": 100}},
    responses=ANSWER_ERRORS,
    headers=REQUEST_HEADERS,
    read=read,
    routes=lambda _: APIRouter(),
    errors=COMPLETIONS_ERRORS,
)
