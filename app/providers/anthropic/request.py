"""What an Anthropic upstream is sent: a `CompletionRequest` as a request for a message. Pure."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from app.domain.chat import Tool, ToolUse
from app.domain.errors import InvalidRequest
from app.domain.json import lenient_json_bytes, strict_json_bytes
from app.providers.anthropic.messages import called_tools, system_text, wire_messages
from app.providers.anthropic.native import native_body
from app.providers.base import CompletionRequest

# How long an answer may get if neither the client nor the model's bounds say so: the API wants to be told.
_LONGEST_ANSWER = 32_000
# Passed on as they are.
_OPTIONS = (
    *("cache_control", "container", "context_management", "inference_geo", "mcp_servers", "output_config", "speed"),
    *("temperature", "thinking", "top_k", "top_p"),
)
_SERVICE_TIERS = ("auto", "standard_only")
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
# Tokens to think with, for models that are told a budget; others are told the effort.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEAST_BUDGET = 1024
_TOLD_A_BUDGET = ("claude-3-7-*", "claude-*-4-2025*", "claude-*-4-0", "claude-*-4-1*", "claude-*-4-5*")
_TOLD_NOTHING = ("claude-3-5-*", "claude-3-haiku*", "claude-3-opus*", "claude-3-sonnet*")
_ONE_ANSWER = "n must be 1: this model gives one answer at a time."
_NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}


def message_body(request: CompletionRequest, *, stream: bool) -> bytes:
    """The JSON body of a request.

    Raises:
        InvalidRequest: It can't be written in this form.
    """
    if request.native is not None:
        return native_body(request, request.native, stream=stream)
    if request.n > 1:
        raise InvalidRequest(_ONE_ANSWER, param="n", code="unsupported_value")
    body: dict[str, object] = {"model": request.model.upstream_id, "max_tokens": _max_tokens(request)}
    if system := system_text(request.messages):
        body["system"] = system
    body |= _tools(request)
    if request.stop:
        # The API refuses texts of blanks only.
        body["stop_sequences"] = [text for text in request.stop if text.strip()]
    body |= _options(request)
    body |= _thinking(request, body)
    if request.output_format.kind == "json_schema":
        given = body.get("output_config")
        form = {"type": "json_schema", "schema": request.output_format.schema or {}}
        body["output_config"] = {**(given if isinstance(given, dict) else {}), "format": form}
    body["stream"] = stream
    try:
        head = strict_json_bytes(body)
    except ValueError as error:
        raise InvalidRequest("The request contains a value that can't be passed on as JSON.") from error
    return b'%b,"messages":%b}' % (head[:-1], lenient_json_bytes(wire_messages(request.messages)))


def one_word_body(model: str) -> bytes:
    """The JSON body of the cheapest request: an answer of one token."""
    return strict_json_bytes({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]})


def _max_tokens(request: CompletionRequest) -> int:
    if request.max_tokens is not None:
        return request.max_tokens
    bounds = request.model.bounds
    most = None if bounds is None else bounds.max_tokens
    return _LONGEST_ANSWER if most is None else min(most, _LONGEST_ANSWER)


def _options(request: CompletionRequest) -> dict[str, object]:
    options = request.options
    taken = {name: options[name] for name in _OPTIONS if name in options}
    if options.get("service_tier") in _SERVICE_TIERS:
        taken["service_tier"] = options["service_tier"]
    if "temperature" in taken:
        taken.pop("top_p", None)  # newer models refuse both at once
    return taken


def _thinking(request: CompletionRequest, body: Mapping[str, object]) -> dict[str, object]:
    """Thinking, for a client that says how much effort it wants. Options that can't be had with it give way."""
    effort = _EFFORTS.get(str(request.options.get("reasoning_effort")))
    model = request.model.upstream_id
    if effort is None or "thinking" in body or any(fnmatchcase(model, pattern) for pattern in _TOLD_NOTHING):
        return {}
    if not any(fnmatchcase(model, pattern) for pattern in _TOLD_A_BUDGET):
        given = body.get("output_config")
        config = {"effort": effort, **(given if isinstance(given, dict) else {})}
        return {"thinking": {"type": "adaptive"}, "output_config": config}
    budget = min(_BUDGETS[effort], _max_tokens(request) - 1)
    is_forced = request.tools is not None and request.tools.choice == "required"
    is_sampled = "temperature" in body or "top_k" in body or "top_p" in body
    if budget < _LEAST_BUDGET or is_forced or is_sampled or _acts_without_thoughts(request):
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _acts_without_thoughts(request: CompletionRequest) -> bool:
    """Whether the call whose results are the last turn has lost its thought: then the API takes no more thinking."""
    for message in reversed(request.messages):
        if message.role == "assistant":
            return bool(message.tool_calls) and not (message.extras and message.extras.get("reasoning_details"))
        if message.role == "user":
            return False
    return False


def _tools(request: CompletionRequest) -> dict[str, object]:
    """Tools and tool choice. A restricted choice means sending only those tools."""
    use = request.tools
    if use is None:
        # The API takes no earlier calls without tools.
        called = called_tools(request.messages)
        if not called:
            return {}
        tools = [{"name": name, "input_schema": _NO_PARAMETERS} for name in called]
        return {"tools": tools, "tool_choice": {"type": "none"}}
    chosen = use.callable_tools or use.tools
    is_strict = "json_schema" in request.model.abilities
    return {
        "tools": [_tool(tool, is_strict=is_strict and tool.strict) for tool in chosen],
        "tool_choice": _choice(use, chosen),
    }


def _choice(use: ToolUse, chosen: tuple[Tool, ...]) -> dict[str, object]:
    if use.choice == "none":
        return {"type": "none"}
    choice: dict[str, object] = {"type": "auto"}
    if use.choice == "required":
        is_named = use.allowed is not None and len(chosen) == 1
        choice = {"type": "tool", "name": chosen[0].name} if is_named else {"type": "any"}
    if not use.parallel:
        choice["disable_parallel_tool_use"] = True
    return choice


def _tool(tool: Tool, *, is_strict: bool) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    wire["input_schema"] = {"type": "object", **tool.parameters} if tool.parameters else _NO_PARAMETERS
    if is_strict:
        wire["strict"] = True
    return wire
