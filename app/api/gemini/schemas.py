"""What Google's clients send and get: the wire types, which also document the API.

Lenient in what they take, as Google's own JSON is: every field has two names (`topP` and `top_p`), one thing may stand
where a list is expected, null means absent. Unknown fields are kept.
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from app.api.wire.body import AnswerModel, WireModel
from app.api.wire.options import Choices, Penalty, Probability, Temperature


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _absent(value: Any) -> Any:
    return None if value == "" else value


def _word_of(words: tuple[str, ...], value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words)
    return words[value] if is_number else _upper(value)


_OneOrMore = BeforeValidator(_listed)
_Word = BeforeValidator(_upper)
# Google's older libraries for Python write numbers for words where they speak HTTP, as protocol buffers have them.
_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
_MODALITIES = ("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO")
_Mode = BeforeValidator(partial(_word_of, _MODES))
_Modality = BeforeValidator(partial(_word_of, _MODALITIES))


class GoogleModel(WireModel):
    """A wire type whose fields have two names."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, json_schema_extra={"additionalProperties": True}
    )


class GeminiBlob(GoogleModel):
    """Data within the request."""

    mime_type: str = Field(description="`image/…`, or `text/…`")
    data: str = Field(description="in base64")


class GeminiFunctionCall(GoogleModel):
    """A call that the model has asked for."""

    id: str | None = None
    name: str
    args: dict[str, Any] | None = None


class GeminiResponsePart(GoogleModel):
    """What a function returned besides its response."""

    inline_data: GeminiBlob | None = None


class GeminiFunctionResponse(GoogleModel):
    """What a function returned."""

    id: str | None = None
    name: str
    response: dict[str, Any] | None = None
    parts: Annotated[list[GeminiResponsePart], _OneOrMore] | None = None


class GeminiPart(GoogleModel):
    """A part of a content: one of text, data, call or response."""

    text: str | None = None
    thought: bool | None = Field(None, description="the text is what was thought, not said")
    thought_signature: str | None = Field(None, description="comes with an answer, and is to be sent back with it")
    inline_data: GeminiBlob | None = None
    function_call: GeminiFunctionCall | None = None
    function_response: GeminiFunctionResponse | None = None


class GeminiContent(GoogleModel):
    """One turn of the conversation."""

    role: Annotated[Literal["user", "model", "function"] | None, BeforeValidator(_absent)] = Field(
        None, description="`user` if absent"
    )
    parts: Annotated[list[GeminiPart], _OneOrMore] | None = None


class GeminiInstruction(GoogleModel):
    """What the model is to bear in mind. It may have any role."""

    parts: Annotated[list[GeminiPart], _OneOrMore] | None = None


class GeminiFunction(GoogleModel):
    """A function that the model may ask the client to call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="a schema in Google's form")
    parameters_json_schema: dict[str, Any] | None = Field(None, description="or a JSON Schema")


class GeminiTool(GoogleModel):
    """Functions. Google's own tools are not served here."""

    function_declarations: Annotated[list[GeminiFunction], _OneOrMore] | None = None


class GeminiCalling(GoogleModel):
    """Whether a function is to be called."""

    mode: Annotated[Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"], _Mode] | None = None
    allowed_function_names: list[str] | None = None


class GeminiToolConfig(GoogleModel):
    """How tools are used."""

    function_calling_config: GeminiCalling | None = None


class GeminiThinking(GoogleModel):
    """How much the model is to think, and whether that is shown."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = Field(None, description="tokens; 0 for none, -1 for as many as the model likes")
    thinking_level: Annotated[str, _Word] | None = Field(None, description="`MINIMAL`, `LOW`, `MEDIUM` or `HIGH`")


class GeminiConfig(GoogleModel):
    """How the answer is to be. What has no effect is accepted and named in `X-Ignored-Params`."""

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    candidate_count: Choices | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_mime_type: str | None = Field(None, description="`text/plain` or `application/json`")
    response_schema: dict[str, Any] | None = Field(None, description="a schema in Google's form")
    response_json_schema: dict[str, Any] | None = Field(None, description="or a JSON Schema")
    response_modalities: list[Annotated[str, _Modality]] | None = Field(None, description="`TEXT` only")
    thinking_config: GeminiThinking | None = None


class GeminiPrompted(GoogleModel):
    """What an answer and a count of tokens are made of."""

    contents: Annotated[list[GeminiContent], _OneOrMore] = Field(
        min_length=1, description="the conversation, oldest turn first"
    )
    system_instruction: GeminiInstruction | None = None
    tools: Annotated[list[GeminiTool], _OneOrMore] | None = None
    tool_config: GeminiToolConfig | None = None


class GenerateContentRequest(GeminiPrompted):
    """A request for an answer. `safetySettings` are accepted and mean nothing."""

    generation_config: GeminiConfig | None = None
    cached_content: str | None = Field(None, description="refused: send the whole conversation each time")


class GeminiCountRequest(GoogleModel):
    """A request for the size of what would be sent."""

    contents: Annotated[list[GeminiContent], _OneOrMore] | None = Field(None, description="what would be sent")
    generate_content_request: GenerateContentRequest | None = Field(
        None, description="or a whole request, of which instruction and functions count as well"
    )


class GeminiTokenCount(AnswerModel):
    """Tokens, estimated at four bytes of UTF-8 each."""

    totalTokens: int


class GeminiAnswerContent(AnswerModel):
    """What the model says."""

    role: Literal["model"]
    parts: list[dict[str, Any]] = Field(description="`text`, `functionCall` or `inlineData` each, see `GeminiPart`")


class GeminiCandidate(AnswerModel):
    """An answer."""

    content: GeminiAnswerContent
    finishReason: Literal["STOP", "MAX_TOKENS", "SAFETY"] | None = None
    index: int


class GeminiUsage(AnswerModel):
    """Tokens, estimated at four bytes of UTF-8 each where the upstream doesn't count."""

    promptTokenCount: int
    candidatesTokenCount: int
    totalTokenCount: int
    thoughtsTokenCount: int | None = None
    cachedContentTokenCount: int | None = None


class GenerateContentResponse(AnswerModel):
    """A whole answer, or a part of a streamed one."""

    candidates: list[GeminiCandidate]
    usageMetadata: GeminiUsage | None = None
    modelVersion: str
    responseId: str


class GeminiParts(RootModel[list[GenerateContentResponse]]):
    """All parts of a streamed answer, where they aren't events."""


class GeminiModel(AnswerModel):
    """A model that can be asked."""

    name: str = Field(examples=["models/kimi"])
    displayName: str
    description: str
    version: str
    inputTokenLimit: int | None = Field(
        None, description="absent where the limit isn't in tokens, or the model doesn't chat"
    )
    supportedGenerationMethods: list[str]


class GeminiModelPage(AnswerModel):
    """A page of the list of models."""

    models: list[GeminiModel]
    nextPageToken: str | None = None


class GeminiError(AnswerModel):
    """What went wrong."""

    code: int
    message: str
    status: str
    details: list[dict[str, Any]] = Field(
        description="`google.rpc.ErrorInfo` with the gateway's own code as its `reason`; `BadRequest`, `RetryInfo`"
    )


class GeminiErrorEnvelope(AnswerModel):
    """The body of every error."""

    error: GeminiError
