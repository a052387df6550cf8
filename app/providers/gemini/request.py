"""What a Gemini upstream is sent: a `CompletionRequest` as a request for content. Pure."""

from fnmatch import fnmatchcase

from app.domain.chat import OutputFormat, Tool
from app.domain.errors import InvalidRequest
from app.domain.json import lenient_json_bytes, strict_json_bytes
from app.providers.base import CompletionRequest
from app.providers.gemini.contents import system_parts, wire_contents

# Under the API's own names for them.
OPTIONS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}
_FIELDS = {"safety_settings": "safetySettings", "cached_content": "cachedContent"}
_THINKERS = ("gemini-2.5-*", "gemini-[3-9]*", "gemini-*-latest")
_NOT_THINKERS = ("*-image*", "*-tts*", "*-live-*")
# Tokens to think with, for models that are told a budget; others are told a level.
_TOLD_A_BUDGET = "gemini-2.5-*"
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
_LEVELS = {"minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high"}
_NEVER_WITHOUT = "gemini-2.5-pro*"
_LEAST_OF_PRO = 128
_ONE_ANSWER = "n must be 1: this model gives one answer at a time."
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}


def content_body(request: CompletionRequest) -> bytes:
    """The JSON body of a request.

    Raises:
        InvalidRequest: It can't be written in this form.
    """
    if request.n > 1:
        raise InvalidRequest(_ONE_ANSWER, param="n", code="unsupported_value")
    options = request.options
    body: dict[str, object] = {name: options[given] for given, name in _FIELDS.items() if given in options}
    if system := system_parts(request.messages):
        body["systemInstruction"] = {"parts": system}
    body |= _tools(request)
    if config := _config(request):
        body["generationConfig"] = config
    try:
        head = strict_json_bytes(body)
    except ValueError as error:
        raise InvalidRequest("The request contains a value that can't be passed on as JSON.") from error
    contents = lenient_json_bytes(wire_contents(request.messages, request.model.upstream_id))
    return b'%b%b"contents":%b}' % (head[:-1], b"," if body else b"", contents)


def one_word_body() -> bytes:
    """The JSON body of the cheapest request: an answer of one token."""
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    return strict_json_bytes({"contents": contents, "generationConfig": {"maxOutputTokens": 1}})


def _config(request: CompletionRequest) -> dict[str, object]:
    config = {name: request.options[given] for given, name in OPTIONS.items() if given in request.options}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.stop:
        config["stopSequences"] = list(request.stop)
    config |= _format(request.output_format)
    if thinking := _thinking(request):
        config["thinkingConfig"] = thinking
    return config


def _format(wanted: OutputFormat) -> dict[str, object]:
    if wanted.kind == "text":
        return {}
    form: dict[str, object] = {"responseMimeType": "application/json"}
    if wanted.kind == "json_schema" and wanted.schema:
        form["responseJsonSchema"] = wanted.schema
    return form


def _thinking(request: CompletionRequest) -> dict[str, object]:
    """How much is thought, if the client says so. What is thought is always told, by models that think."""
    given, model = request.options.get("thinking_config"), request.model.upstream_id.removeprefix("models/")
    if isinstance(given, dict):
        return given
    if not _is_one_of(model, _THINKERS) or _is_one_of(model, _NOT_THINKERS):
        return {}
    thinking: dict[str, object] = {"includeThoughts": True}
    effort = str(request.options.get("reasoning_effort"))
    if fnmatchcase(model, _TOLD_A_BUDGET):
        if effort in _BUDGETS:
            least = _LEAST_OF_PRO if fnmatchcase(model, _NEVER_WITHOUT) else 0
            thinking["thinkingBudget"] = max(_BUDGETS[effort], least)
    elif effort in _LEVELS:
        thinking["thinkingLevel"] = _LEVELS[effort]
    return thinking


def _is_one_of(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _tools(request: CompletionRequest) -> dict[str, object]:
    use = request.tools
    if use is None:
        return {}
    calling: dict[str, object] = {"mode": _MODES[use.choice]}
    tools = use.callable_tools or use.tools
    if use.choice == "required" and use.allowed is not None:
        calling["allowedFunctionNames"] = [tool.name for tool in tools]
    return {
        "tools": [{"functionDeclarations": [_declaration(tool) for tool in tools]}],
        "toolConfig": {"functionCallingConfig": calling},
    }


def _declaration(tool: Tool) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    if tool.parameters:
        wire["parametersJsonSchema"] = {"type": "object", **tool.parameters}
    return wire
