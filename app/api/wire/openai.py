"""What OpenAI's chat completions and legacy completions have in common on the wire. Pure."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from app.api.wire.body import WireModel
from app.api.wire.faults import too_many
from app.domain.chat import Usage

DONE = b"data: [DONE]\n\n"
_MAX_STOPS = 16


def _no_limit(value: Any) -> Any:
    """Minus one is what some clients send for no limit."""
    return None if value in (-1, "-1") else value


# The options that every OpenAI dialect has, within OpenAI's own bounds.
MaxTokens = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_no_limit)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
Choices = Annotated[int, Field(ge=1, le=128)]
LogitBias = dict[str, Annotated[float, Field(ge=-100, le=100)]]


class StreamOptions(WireModel):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(None, description="send a last chunk with the usage")


class PromptTokensDetails(BaseModel):
    """Of the tokens read."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """Of the tokens written."""

    reasoning_tokens: int


class UsageObject(BaseModel):
    """Tokens, estimated at four bytes of UTF-8 each where the upstream doesn't count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


def usage_object(usage: Usage) -> dict[str, object]:
    """The `usage` of an answer; details only where an upstream told some."""
    document: dict[str, object] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        document["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        document["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return document


def stop_texts(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop texts of a request.

    Raises:
        InvalidRequest: There are too many.
    """
    if not stop:
        return ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stops) > _MAX_STOPS:
        raise too_many("stop", _MAX_STOPS, len(stops))
    return tuple(text for text in stops if text)
