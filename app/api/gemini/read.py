"""Reads requests for content: from the wire to the call that is meant. Every fault is named by its place."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from msgspec.structs import replace
from pydantic import BaseModel

from app.api.dialects import EVENTS, DialectServices, Exchange
from app.api.gemini.contents import Unreadable, read_conversation
from app.api.gemini.errors import NAMES, google_fault
from app.api.gemini.google_schema import json_schema
from app.api.gemini.native import native_request
from app.api.gemini.schemas import (
    GeminiConfig,
    GeminiCountRequest,
    GeminiFunction,
    GeminiPrompted,
    GeminiThinking,
    GenerateContentRequest,
)
from app.api.gemini.stream import ContentEncoder
from app.api.gemini.write import write_content
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.wire.body import nameable, parse_body
from app.api.wire.conversation import Conversation, tokens_of
from app.api.wire.tools import tool_use
from app.domain.chat import PLAIN_TEXT, ChatCall, OutputFormat, Tool, ToolUse
from app.domain.errors import InvalidRequest

_CHOICES: dict[str | None, Literal["none", "auto", "required"]] = {"ANY": "required", "NONE": "none"}
# What upstreams know, by their name for it.
_OPTIONS = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset({"safetySettings", "safety_settings", "labels", "model", "store", "serviceTier"})
_MAX_STOPS = 16
_JSON = "application/json"
_TEXT = "text/plain"
_NO_CACHE = "cachedContent is not supported: send the whole conversation each time."
# Tokens to think with, and the effort that other vendors have for so many.
_EFFORTS = ((0, "none"), (1024, "low"), (8192, "medium"))


async def read(body: bytes, context: RequestContext, services: DialectServices, *, stream: bool) -> Exchange:
    """Read a request for content. Its address names the model.

    Args:
        body: Its body.
        context: Its context.
        services: What it builds on.
        stream: Whether its address asks for a stream.
    """
    request = parse_body(GenerateContentRequest, body, fault=google_fault)
    model, hints = context.asked.model, session_hints(context.headers, None)
    config = request.generation_config or GeminiConfig()
    show_thoughts = config.thinking_config is not None and bool(config.thinking_config.include_thoughts)
    as_array = not _wants_events(context.asked.query)
    if services.registry.has_kind("gemini", model, hints["provider"], context.caller):
        call = native_call(request, model, hints, body, max_messages=services.max_messages, stream=stream)
    else:
        call = to_call(request, model, hints, max_messages=services.max_messages)
    return Exchange(
        calls=(call,),
        stream=stream,
        write=partial(write_content, show_thoughts=show_thoughts),
        encoder=partial(ContentEncoder, show_thoughts=show_thoughts, as_array=as_array, request_id=context.request_id),
        stream_type=b"application/json" if as_array else EVENTS,
        ignored=[NAMES[name] for name in call.options],
        unserved=unserved(request, config),
        names=NAMES,
    )


def to_call(request: GenerateContentRequest, model: str, hints: SessionHints, *, max_messages: int) -> ChatCall:
    """The call that a request means.

    Args:
        request: The request as it came.
        model: That its address names.
        hints: What its headers say of its session.
        max_messages: Contents that may come.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    call, _, refusal = _read(request, model, hints, max_messages)
    if refusal is not None:
        raise refusal
    return call


def native_call(
    request: GenerateContentRequest, model: str, hints: SessionHints, body: bytes, *, max_messages: int, stream: bool
) -> ChatCall:
    """The call that a request means, with the request as it came, for an upstream of Gemini's form.

    Args:
        request: The request as it came.
        model: That its address names.
        hints: What its headers say of its session.
        body: Its body.
        max_messages: Contents that may come.
        stream: Whether its address asks for a stream.

    Raises:
        InvalidRequest: It is malformed. What only such an upstream can do is no error.
    """
    call, conversation, refusal = _read(request, model, hints, max_messages)
    return replace(call, native=native_request(body, conversation, call.messages, refusal, stream=stream))


def _read(
    request: GenerateContentRequest, model: str, hints: SessionHints, max_messages: int
) -> tuple[ChatCall, Conversation, InvalidRequest | None]:
    """The call, what its contents mean, and what in the request can't be read, the first of it."""
    _refuse_too_many(request, max_messages)
    config = request.generation_config or GeminiConfig()
    conversation = read_conversation(request.system_instruction, request.contents)
    refusals = [conversation.refusal]
    if request.cached_content:
        refusals.append(Unreadable(_NO_CACHE, param="cachedContent"))
    tools, output_format = None, PLAIN_TEXT
    try:
        tools = _tools(request)
        output_format = _output_format(config)
    except Unreadable as unsupported:
        refusals.append(unsupported.with_traceback(None))
    call = ChatCall(
        model=model,
        messages=conversation.messages,
        tools=tools,
        output_format=output_format,
        max_tokens=config.max_output_tokens,
        stop=_stops(config),
        options=_options(config),
        n=config.candidate_count or 1,
        **hints,
    )
    return call, conversation, next((refusal for refusal in refusals if refusal is not None), None)


def unserved(request: GenerateContentRequest, config: GeminiConfig) -> list[str]:
    """What the answer takes no account of, whoever answers, as far as its names can stand in a header."""
    names = [name for name in _extra(request) if name not in _INCONSEQUENTIAL]
    names += [f"generationConfig.{name}" for name in _extra(config)]
    names += [f"tools.{name}" for tool in request.tools or () for name in _extra(tool)]
    if request.tool_config is not None:
        names += [f"toolConfig.{name}" for name in _extra(request.tool_config)]
    return nameable(set(names))


def count_tokens(request: GeminiCountRequest, *, max_messages: int, is_native: bool = False) -> int:
    """Tokens of everything that was sent: instruction, contents and functions; images count nothing.

    Args:
        is_native: An upstream of Gemini's form may answer, which can read what can't be read here.

    Raises:
        InvalidRequest: Something in it can't be read.
    """
    prompted: GeminiPrompted | None = request.generate_content_request
    if prompted is None:
        if not request.contents:
            raise InvalidRequest("contents must not be empty.", param="contents")
        prompted = GeminiPrompted(contents=request.contents)
    _refuse_too_many(prompted, max_messages)
    conversation = read_conversation(prompted.system_instruction, prompted.contents)
    if conversation.refusal is not None and not is_native:
        raise conversation.refusal
    tools = None
    try:
        tools = _tools(prompted)
    except Unreadable:
        if not is_native:
            raise
    return tokens_of(conversation.messages, tools)


def _wants_events(query: bytes) -> bool:
    parts = query.split(b"&")
    return b"alt=sse" in parts or b"%24alt=sse" in parts or b"$alt=sse" in parts


def _extra(model: BaseModel) -> list[str]:
    return [name for name, value in (model.model_extra or {}).items() if value is not None]


def _refuse_too_many(request: GeminiPrompted, max_messages: int) -> None:
    if len(request.contents) > max_messages:
        raise InvalidRequest(
            f"contents must not have more than {max_messages} entries (MAX_MESSAGES).", param="contents"
        )


def _stops(config: GeminiConfig) -> tuple[str, ...]:
    stops = config.stop_sequences or ()
    if len(stops) > _MAX_STOPS:
        raise InvalidRequest(
            f"stopSequences must not have more than {_MAX_STOPS} texts.", param="generationConfig.stopSequences"
        )
    return tuple(text for text in stops if text)


def _options(config: GeminiConfig) -> Mapping[str, object]:
    options = {name: value for name in _OPTIONS if (value := getattr(config, name)) is not None}
    effort = None if config.thinking_config is None else _effort(config.thinking_config)
    return options if effort is None else {**options, "reasoning_effort": effort}


def _effort(thinking: GeminiThinking) -> str | None:
    """How much is to be thought, in the words of other vendors; None if the client leaves that to the model."""
    if thinking.thinking_level:
        level = thinking.thinking_level.lower()
        return None if level.endswith("unspecified") else level
    budget = thinking.thinking_budget
    if budget is None or budget < 0:
        return None
    return next((effort for most, effort in _EFFORTS if budget <= most), "high")


def _output_format(config: GeminiConfig) -> OutputFormat:
    if set(config.response_modalities or ()) - {"TEXT", "MODALITY_UNSPECIFIED"}:
        raise Unreadable(
            "responseModalities must be TEXT: other answers are not supported here.",
            param="generationConfig.responseModalities",
        )
    if config.response_mime_type not in (None, "", _TEXT, _JSON):
        raise Unreadable(f"responseMimeType must be {_TEXT} or {_JSON}.", param="generationConfig.responseMimeType")
    if config.response_json_schema is not None:
        place = "generationConfig.responseJsonSchema"
        return OutputFormat("json_schema", config.response_json_schema, place=place)
    if config.response_schema is not None:
        return OutputFormat("json_schema", json_schema(config.response_schema), place="generationConfig.responseSchema")
    if config.response_mime_type == _JSON:
        return OutputFormat("json_object", place="generationConfig.responseMimeType")
    return PLAIN_TEXT


def _tools(request: GeminiPrompted) -> ToolUse | None:
    """The client's own functions.

    Google's tools (search, code execution, contexts of URLs) can't be served. Among others they are left out; a request
    that has nothing else is about them, and had better be refused than answered from thin air.
    """
    given = request.tools or ()
    places = [
        (function, f"tools[{index}].functionDeclarations[{inner}]")
        for index, tool in enumerate(given)
        for inner, function in enumerate(tool.function_declarations or ())
    ]
    googles = [name for tool in given for name in _extra(tool)]
    if googles and not places:
        raise Unreadable(f"The tool {googles[0][:40]!r} is not supported here.", param="tools")
    calling = None if request.tool_config is None else request.tool_config.function_calling_config
    mode, names = (None, None) if calling is None else (calling.mode, calling.allowed_function_names)
    choice = _CHOICES.get(mode, "auto")
    _check_choice(choice, names or (), [function.name for function, _ in places])
    return tool_use(
        [_tool(function, place) for function, place in places],
        choice=choice,
        allowed=names or None,
        param=lambda index: f"{places[index][1]}.name",
    )


def _check_choice(choice: str, allowed: Sequence[str], known: Sequence[str]) -> None:
    place = "toolConfig.functionCallingConfig"
    if choice == "required" and not known:
        raise InvalidRequest("mode ANY requires a function call, but there are no functions.", param=f"{place}.mode")
    for name in allowed:
        if name not in known:
            raise InvalidRequest(
                f"allowedFunctionNames names {name[:100]!r}, which is not among the functions.",
                param=f"{place}.allowedFunctionNames",
            )


def _tool(function: GeminiFunction, place: str) -> Tool:
    if function.parameters_json_schema is not None:
        where, parameters = "parametersJsonSchema", function.parameters_json_schema
    else:
        where, parameters = "parameters", json_schema(function.parameters or {})
    return Tool(function.name, function.description or "", parameters, place=f"{place}.{where}")
