"""What OpenAI clients send and get: the wire types, which also document the API.

Lenient in what they take: unknown fields are kept, numbers may come as strings, null means absent.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import WireModel
from app.api.wire.openai import StreamOptions, UsageObject


class ImageUrl(WireModel):
    """Where an image is."""

    url: str = Field(min_length=1, description="its address, or the image itself as a `data:` URL")
    detail: str | None = None


class ContentPart(WireModel):
    """One part of a message. Only text can be sent to a text-only model."""

    type: str = Field(description="`text` or `image_url`", examples=["text"])
    text: str | None = Field(None, description="the text of a `text` part")
    image_url: ImageUrl | None = Field(None, description="the image of an `image_url` part")


class FunctionCall(WireModel):
    """Which function, and its arguments as JSON text."""

    name: str = ""
    arguments: str = "{}"


class WireToolCall(WireModel):
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


class ChatMessage(WireModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = Field(None, description="text, an array of parts, or null (assistant messages with tool calls)")
    name: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = Field(None, description="as a tool call, in the older form")
    reasoning_content: str | None = Field(None, description="thoughts, for upstreams that want them back")


class FunctionDefinition(WireModel):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="the JSON Schema of its arguments")
    strict: bool | None = None


class ToolDefinition(WireModel):
    """A tool; only functions are known."""

    type: str = "function"
    function: FunctionDefinition | None = None


class NamedFunction(WireModel):
    """A function by its name."""

    name: str


class ToolChoiceEntry(WireModel):
    """A tool by its name."""

    type: str = "function"
    function: NamedFunction | None = None


class AllowedTools(WireModel):
    """Some of the tools, and whether one of them is to be called."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[ToolChoiceEntry]


class ToolChoice(WireModel):
    """The one function to call, or those that may be called."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(WireModel):
    """The schema that the answer must fit."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(WireModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


def _choice_tag(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<choice>"


Choices = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[ToolChoice, Tag("<choice>")],
    Discriminator(_choice_tag),
]
FunctionChoices = Annotated[
    Annotated[Literal["none", "auto"], Tag("<word>")] | Annotated[NamedFunction, Tag("<choice>")],
    Discriminator(_choice_tag),
]


class ChatCompletionRequest(WireModel):
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
    tools: list[ToolDefinition] | None = Field(None, description="functions that the model may ask to be called")
    tool_choice: Choices | None = Field(None, description="whether, and which, to call")
    parallel_tool_calls: bool | None = Field(None, description="`false`: at most one call at a time")
    functions: list[FunctionDefinition] | None = Field(None, description="as tools, in the older form")
    function_call: FunctionChoices | None = Field(None, description="as tool_choice, in the older form")
    response_format: ResponseFormat | None = Field(None, description="text, any JSON object, or one that fits a schema")
    modalities: list[str] | None = None


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None


class Choice(BaseModel):
    """The one choice of an answer."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageObject


class ModelObject(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int = Field(description="the largest prompt, in `context_unit`")
    context_unit: str
    provider: str = Field(description="who answers first")
    abilities: list[str] = Field(description="what the model does by itself; the gateway makes up for tools and JSON")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
