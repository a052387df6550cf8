"""What clients of the responses dialect send and get: the wire types, which also document the API.

Lenient in what they take: unknown fields are kept, unknown items and tools are passed over, null means absent.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.api.wire.body import AnswerModel, WireModel, text_tag
from app.api.wire.content import Content, ContentPart
from app.api.wire.formats import ResponseFormat
from app.api.wire.options import MaxTokens, Probability, Temperature, TopLogprobs


class _FiniteModel(WireModel):
    """Infinities would go out again as no JSON: requests are kept, and echoed."""

    model_config = ConfigDict(allow_inf_nan=False)


class MessageItem(_FiniteModel):
    """A message of the conversation."""

    type: Literal["message"] | None = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content = Field(None, description="text or an array of parts; only an assistant's may be null")


class FunctionCallItem(_FiniteModel):
    """A function call that the assistant asked for."""

    type: Literal["function_call"]
    id: str | None = None
    call_id: str | None = Field(None, description="if it is missing, that of the output that follows")
    name: str
    namespace: str | None = None
    arguments: str | dict[str, Any] | None = Field(None, description="JSON text; the object itself is taken as well")


class CustomCallItem(_FiniteModel):
    """A call of a custom tool that the assistant asked for; its input is text of any form."""

    type: Literal["custom_tool_call"]
    id: str | None = None
    call_id: str | None = Field(None, description="if it is missing, that of the output that follows")
    name: str
    namespace: str | None = None
    input: str | None = None


class CallOutputItem(_FiniteModel):
    """What a called tool answered."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    id: str | None = None
    call_id: str | None = Field(None, description="if it is missing, that of the call before")
    output: Content = None


class ReasoningItem(_FiniteModel):
    """What the assistant thought; read as far as it isn't encrypted."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[ContentPart] | None = None
    content: list[ContentPart] | None = None


class ItemReference(_FiniteModel):
    """Stands for an item of a response that is kept."""

    type: Literal["item_reference"] | None = "item_reference"
    id: str


class OtherItem(_FiniteModel):
    """An item that only a built-in tool could have made; it is passed over."""

    type: str


_TAGS = {
    "message": "<message>",
    "function_call": "<function_call>",
    "custom_tool_call": "<custom_tool_call>",
    "function_call_output": "<call_output>",
    "custom_tool_call_output": "<call_output>",
    "reasoning": "<reasoning>",
    "item_reference": "<item_reference>",
}


def _item_tag(value: Any) -> str:
    fields = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    kind = fields.get("type")
    if kind is None:
        # Messages and references may go without a type.
        kind = "item_reference" if "id" in fields and "role" not in fields else "message"
    return _TAGS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[CustomCallItem, Tag("<custom_tool_call>")]
    | Annotated[CallOutputItem, Tag("<call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
    | Annotated[OtherItem, Tag("<other>")],
    Discriminator(_item_tag),
]


Input = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[Item], Tag("<array>")], Discriminator(text_tag)]


class TextConfig(_FiniteModel):
    """How the answer's text is to be."""

    format: ResponseFormat | None = None
    verbosity: str | None = None


class Reasoning(_FiniteModel):
    """How much the model is to think."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(_FiniteModel):
    """A request for a response. What has no effect is accepted and named in `X-Ignored-Params`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, json_schema_extra={"additionalProperties": True})

    model: str | None = Field(None, description="a model of `GET /v1/models`; the gateway's default if absent")
    input: Input | None = Field(None, description="a text, or the items of the conversation, oldest first")
    instructions: str | None = Field(None, description="the system message; not carried over to the next response")
    previous_response_id: str | None = Field(None, description="continue the conversation of a response that is kept")
    store: bool | None = Field(None, description="keep the response for a while; true if absent")
    stream: bool | None = None
    max_output_tokens: MaxTokens = Field(None, description="the answer ends after so many tokens; -1 for no limit")
    tools: list[dict[str, Any]] | None = Field(None, description="functions and custom tools; others are passed over")
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = Field(None, description="comes back with the response")
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: TopLogprobs | None = None
    background: bool | None = Field(None, description="must not be true")
    conversation: Any = Field(None, description="must be absent: use `previous_response_id`")
    prompt: Any = Field(None, description="must be absent: there are no stored prompts here")


class InputTokensDetails(AnswerModel):
    """Of the tokens read."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(AnswerModel):
    """Of the tokens written."""

    reasoning_tokens: int


class ResponseUsage(AnswerModel):
    """Tokens, estimated at four bytes of UTF-8 each where the upstream doesn't count."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseObject(_FiniteModel):
    """A response."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]] = Field(description="messages, reasoning and tool calls, in order")
    usage: ResponseUsage | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None = Field(description="`reason`: `max_output_tokens` or `content_filter`")
    store: bool = Field(description="is it kept?")


class ResponseDeleted(AnswerModel):
    """The response is forgotten."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(AnswerModel):
    """A page of the items that a response answers."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(AnswerModel):
    """How many tokens an input is estimated to have."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
