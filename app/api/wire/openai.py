"""What OpenAI's chat completions and legacy completions have in common on the wire. Pure."""

from collections.abc import Sequence

from pydantic import Field

from app.api.wire.body import AnswerModel, WireModel
from app.api.wire.faults import too_many
from app.domain.chat import Usage

DONE = b"data: [DONE]\n\n"
_MAX_STOPS = 16


class StreamOptions(WireModel):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(None, description="send a last chunk with the usage")


class PromptTokensDetails(AnswerModel):
    """Of the tokens read."""

    cached_tokens: int


class CompletionTokensDetails(AnswerModel):
    """Of the tokens written."""

    reasoning_tokens: int


class UsageObject(AnswerModel):
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
