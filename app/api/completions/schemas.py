"""What clients of the legacy completions dialect send and get.

Lenient in what they take: unknown fields are kept, numbers may come as strings, null means absent.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import AnswerModel, WireModel, text_tag
from app.api.wire.openai import StreamOptions, UsageObject
from app.api.wire.options import Choices, LogitBias, MaxTokens, Penalty, Probability, Temperature

Prompt = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str | int | list[int]], Tag("<array>")], Discriminator(text_tag)
]


class TextCompletionRequest(WireModel):
    """A text to go on from. Fields that have no effect are accepted and named in `X-Ignored-Params`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True})

    prompt: Prompt | None = Field(None, description="a text, or several, which are answered one after the other")
    model: str | None = Field(None, description="a model of `GET /v1/models`; the gateway's default if absent")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens = Field(None, description="the answer ends after so many tokens; -1 for no limit")
    stop: str | list[str] | None = Field(None, description="texts that end the answer; up to 16")
    echo: bool | None = Field(None, description="begin the answer with the prompt")
    suffix: str | None = Field(None, description="must be absent or empty")
    n: Choices | None = Field(None, description="must be 1")
    best_of: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="must be 1")
    logprobs: bool | int | None = Field(None, description="must be absent")
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: int | None = None
    logit_bias: LogitBias | None = None


class CompletionChoice(AnswerModel):
    """The answer to one prompt."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(AnswerModel):
    """All answers."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageObject
