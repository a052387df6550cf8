"""What Anthropic's clients send and get: the wire types, which also document the API.

Lenient in what they take: unknown fields are kept, null means absent. All kinds of content blocks share one type, whose
`type` says which of the fields count.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import AnswerModel, WireModel
from app.api.wire.options import Probability, Temperature


# Union members are named in angle brackets: they come up in pydantic's error locations, and are told from fields so.
def _content_tag(value: Any) -> str:
    if value is None:
        return "<null>"
    if isinstance(value, list):
        return "<blocks>"
    return "<object>" if isinstance(value, dict) else "<text>"


class ContentSource(WireModel):
    """Where an image or a document comes from."""

    type: str = Field(description="`base64`, `url`, `text` or `content`")
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: "str | list[ContentBlock] | None" = None


class ContentBlock(WireModel):
    """A part of a message."""

    type: str = Field(
        description="`text`, `image`, `document`, `search_result`, `thinking`, `redacted_thinking`, `tool_use` or "
        "`tool_result`",
        examples=["text"],
    )
    text: str | None = None
    thinking: str | None = None
    source: "Annotated[_Source | _Text, Discriminator(_content_tag)] | None" = Field(
        None, description="of an image or a document; of a search result its address"
    )
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_name: str | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None
    content: "Annotated[_Text | _Blocks | _Object | _Null, Discriminator(_content_tag)]" = None


_Source = Annotated[ContentSource, Tag("<object>")]
_Text = Annotated[str, Tag("<text>")]
_Blocks = Annotated[list[ContentBlock], Tag("<blocks>")]
_Object = Annotated[dict[str, Any], Tag("<object>")]
_Null = Annotated[None, Tag("<null>")]
Content = Annotated[_Text | _Blocks, Discriminator(_content_tag)]
OptionalContent = Annotated[_Text | _Blocks | _Null, Discriminator(_content_tag)]


class WireMessage(WireModel):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: OptionalContent


class WireTool(WireModel):
    """A tool that the model may ask the client to use."""

    name: str | None = None
    type: str | None = Field(None, description="`custom` or absent; tools of other types are Anthropic's own")
    description: str | None = None
    input_schema: dict[str, Any] | None = Field(None, description="the JSON Schema of the tool's input")
    strict: bool | None = None


class WireToolChoice(WireModel):
    """Whether a tool is to be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(WireModel):
    """Whether the client wants to see what the model thinks before it answers."""

    type: str = Field(description="`enabled` and `adaptive` show it")
    display: str | None = Field(None, description="`omitted` hides it again")


class WireFormat(WireModel):
    """The form of the answer's text."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """How the answer is to be."""

    format: WireFormat | None = None


class Prompted(WireModel):
    """What creating a message and counting its tokens have in common."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True})

    model: str = Field(min_length=1, description="a model of `GET /v1/models`")
    messages: list[WireMessage] = Field(min_length=1, description="the conversation, oldest message first")
    system: Content | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    thinking: Thinking | None = None
    output_format: WireFormat | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(Prompted):
    """A request for a message. What has no effect is accepted and named in `X-Ignored-Params`."""

    max_tokens: int = Field(ge=1, description="the answer ends after so many tokens")
    stop_sequences: list[str] | None = Field(None, description="texts that end the answer")
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: int | None = None
    metadata: dict[str, Any] | None = Field(None, description="accepted; opens no session")
    thread: dict[str, Any] | None = Field(None, description="refused: send the whole conversation each time")


class CountTokensRequest(Prompted):
    """A request for the size of what `messages` would be sent."""


class TokenCount(AnswerModel):
    """Tokens, estimated at four bytes of UTF-8 each."""

    input_tokens: int


class MessageUsage(AnswerModel):
    """Tokens, estimated at four bytes of UTF-8 each where the upstream doesn't count."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class TextBlock(AnswerModel):
    """A text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(AnswerModel):
    """What the model thought; it is not signed."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(AnswerModel):
    """A tool that the client is asked to use."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class AnswerMessage(AnswerModel):
    """A whole answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
    stop_sequence: str | None
    usage: MessageUsage


class ModelInfo(AnswerModel):
    """A model that can be asked."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = Field(description="null where the limit isn't in tokens, or the model doesn't chat")


class ModelPage(AnswerModel):
    """A page of the list of models."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


class AnthropicError(AnswerModel):
    """What went wrong."""

    type: str
    message: str
    details: dict[str, str] | None = Field(None, description="`error_code` is the gateway's own code")


class AnthropicErrorEnvelope(AnswerModel):
    """The body of every error."""

    type: Literal["error"]
    error: AnthropicError
    request_id: str | None
