"""What OpenAI clients send and get: the wire types, which also document the API.

Lenient in what they take: unknown fields are kept, numbers may come as strings, null means absent.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import AnswerModel, WireModel
from app.api.wire.content import Content
from app.api.wire.formats import ResponseFormat
from app.api.wire.openai import StreamOptions, UsageObject
from app.api.wire.options import Choices, LogitBias, MaxTokens, Penalty, Probability, Temperature, TopLogprobs


class FunctionCall(WireModel):
    """Which function, and its arguments."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = Field(None, description="JSON text; the object itself is taken as well")


class CustomCall(WireModel):
    """Which custom tool, and its input."""

    name: str | None = None
    input: str | None = None


class WireToolCall(FunctionCall):
    """A tool call in an assistant message of the history; name and arguments may stand in it as they are."""

    id: str | None = Field(None, description="if it is missing, that of the result that follows")
    type: str | None = Field(None, description="`function` (also if absent) or `custom`")
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class ChatMessage(WireModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = Field(None, description="text, an array of parts, or null (assistant messages with tool calls)")
    name: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = Field(None, description="if it is missing, that of the call before")
    function_call: FunctionCall | None = Field(None, description="as a tool call, in the older form")
    reasoning_content: str | None = Field(None, description="thoughts, for upstreams that want them back")


class FunctionDefinition(WireModel):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="the JSON Schema of its arguments")
    strict: bool | None = None


class CustomDefinition(WireModel):
    """A tool whose input is text of any form."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    format: dict[str, Any] | None = Field(None, description="a grammar, which the model is told")


class ToolDefinition(WireModel):
    """A tool: a function or a custom tool. What it is may also stand beside its type, as on /v1/responses."""

    type: str | None = Field(None, description="`function` (also if absent) or `custom`")
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None
    name: str | None = Field(None, min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None


class NamedFunction(WireModel):
    """A function by its name."""

    name: str


class ToolChoiceEntry(WireModel):
    """A tool by its name, which may also stand beside its type, as on /v1/responses."""

    type: str | None = None
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    name: str | None = None


class AllowedTools(WireModel):
    """Some of the tools, and whether one of them is to be called."""

    mode: Literal["auto", "required"] | None = None
    tools: list[ToolChoiceEntry]


class ToolChoice(ToolChoiceEntry):
    """The one tool to call, or those that may be called."""

    allowed_tools: AllowedTools | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolChoiceEntry] | None = None


def _choice_tag(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<choice>"


ToolChoices = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[ToolChoice, Tag("<choice>")],
    Discriminator(_choice_tag),
]
FunctionChoices = Annotated[
    Annotated[Literal["none", "auto"], Tag("<word>")] | Annotated[NamedFunction, Tag("<choice>")],
    Discriminator(_choice_tag),
]


class ChatCompletionRequest(WireModel):
    """A request for an answer. Fields that the upstream has no use for are accepted and named in `X-Ignored-Params`."""

    # Built at the start, unlike the others: nearly every worker gets one.
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True}, defer_build=False)

    messages: list[ChatMessage] = Field(min_length=1, description="the conversation, oldest message first")
    model: str | None = Field(None, description="a model of `GET /v1/models`; the gateway's default if absent")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens = Field(None, description="as max_completion_tokens, which wins; -1 for no limit")
    max_completion_tokens: MaxTokens = Field(None, description="the answer ends after so many tokens")
    stop: str | list[str] | None = Field(None, description="texts that end the answer; up to 16")
    n: Choices | None = Field(None, description="answers that are wanted; more than 1 of upstreams with an API")
    user: str | None = Field(None, description="opens a session, unless SESSION_FROM_USER is off")
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    logit_bias: LogitBias | None = None
    tools: list[ToolDefinition] | None = Field(None, description="functions and custom tools that may be called")
    tool_choice: ToolChoices | None = Field(None, description="whether, and which, to call")
    parallel_tool_calls: bool | None = Field(None, description="`false`: at most one call at a time")
    functions: list[FunctionDefinition] | None = Field(None, description="as tools, in the older form")
    function_call: FunctionChoices | None = Field(None, description="as tool_choice, in the older form")
    response_format: ResponseFormat | None = Field(None, description="text, any JSON object, or one that fits a schema")
    modalities: list[str] | None = None


class AnsweredFunction(AnswerModel):
    """Which function is to be called, and its arguments as JSON text."""

    name: str
    arguments: str


class AnsweredCustom(AnswerModel):
    """Which custom tool is to be called, and its input."""

    name: str
    input: str


class AnsweredCall(AnswerModel):
    """A tool that the client is asked to call."""

    id: str
    type: Literal["function", "custom"]
    function: AnsweredFunction | None = None
    custom: AnsweredCustom | None = None


class AssistantMessage(AnswerModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[AnsweredCall] | None = None
    function_call: AnsweredFunction | None = None
    reasoning_content: str | None = None


class Choice(AnswerModel):
    """The one choice of an answer."""

    index: int
    message: AssistantMessage
    logprobs: dict[str, Any] | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class ChatCompletion(AnswerModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageObject


class ModelObject(AnswerModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    name: str = Field(description="what chat apps show")
    description: str = Field(description="who answers, and how long a conversation it takes")
    created: int
    owned_by: str
    context_length: int | None = Field(
        None, description="the largest prompt, in `context_unit`; absent for models that don't chat"
    )
    context_unit: str | None = None
    provider: str = Field(description="who answers first")
    abilities: list[str] = Field(description="what the model does by itself; the gateway makes up for tools and JSON")


class ModelList(AnswerModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
