"""What OpenAI clients send and get: the wire types, which also document the API.

Lenient in what they take: unknown fields are kept, numbers may come as strings, null means absent.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow")


class ContentPart(_Wire):
    """One part of a message. Only text can be sent to a text-only model."""

    type: str = Field(description="`text`; other types are refused by text-only models", examples=["text"])
    text: str | None = Field(None, description="the text of a `text` part")


class FunctionCall(_Wire):
    """Which function, and its arguments as JSON text."""

    name: str = ""
    arguments: str = "{}"


class ToolCall(_Wire):
    """A tool call in an assistant message of the history."""

    id: str = ""
    type: str = "function"
    function: FunctionCall = FunctionCall()


# Union members are named in angle brackets: they come up in pydantic's error locations, and are told from fields so.
def _content_tag(value: Any) -> str:
    if value is None:
        return "<null>"
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Tag("<parts>")] | Annotated[None, Tag("<null>")],
    Discriminator(_content_tag),
]


class ChatMessage(_Wire):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = Field(None, description="text, an array of parts, or null (assistant messages with tool calls)")
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class StreamOptions(_Wire):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(None, description="send a last chunk with the usage")


class ChatCompletionRequest(_Wire):
    """A request for an answer. Fields that the upstream has no use for are accepted and named in `X-Ignored-Params`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True})

    messages: list[ChatMessage] = Field(min_length=1, description="the conversation, oldest message first")
    model: str | None = Field(None, description="a model of `GET /v1/models`; the gateway's default if absent")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="as max_completion_tokens, which wins")
    max_completion_tokens: int | None = Field(None, ge=1, description="the answer ends after so many tokens")
    stop: str | list[str] | None = Field(None, description="texts that end the answer; up to 16")
    n: int | None = Field(None, description="must be 1")
    user: str | None = Field(None, description="opens a session, unless SESSION_FROM_USER is off")
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None


class Usage(BaseModel):
    """Tokens, estimated at four bytes of UTF-8 each where the upstream doesn't count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None


class Choice(BaseModel):
    """The one choice of an answer."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelObject(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int = Field(description="the largest prompt, in `context_unit`")
    context_unit: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every error."""

    error: ErrorObject
