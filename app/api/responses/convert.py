"""Between the wire and what it means. Pure; every fault of the request is found here and named by its `param`."""

import json
from collections.abc import Sequence

from app.api.bodies import given_fields, nameable
from app.api.headers import SessionHints
from app.api.responses.items import Placed, passed_over, to_messages
from app.api.responses.schemas import ResponsesRequest, TextFormat
from app.api.responses.tools import Toolbox, read_tools
from app.domain.chat import PLAIN_TEXT, ChatCall, Message, OutputFormat
from app.domain.errors import InvalidRequest
from app.domain.tokens import estimate

# What is looked at; some only to be refused.
_HONOURED = frozenset(
    {"model", "input", "instructions", "previous_response_id", "store", "stream", "max_output_tokens", "tools"}
    | {"tool_choice", "parallel_tool_calls", "text", "metadata", "background", "conversation", "prompt"}
)
# Of no consequence for the answer: nothing is lost when they are not looked at.
_INCONSEQUENTIAL = frozenset(
    {"include", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "user"}
    | {"prompt_cache_options", "stream_options", "client_metadata"}
)
_NOT_IGNORED = _HONOURED | _INCONSEQUENTIAL
# The fields by which the layers below name what is wrong, in the words of this dialect.
FIELD_NAMES = {"messages": "input"}


def understand_tools(request: ResponsesRequest) -> Toolbox:
    """What a request says about tools.

    Raises:
        InvalidRequest: A tool or the choice of one is wrong.
    """
    return read_tools(request.tools or (), request.tool_choice, parallel=request.parallel_tool_calls is not False)


def refuse_impossible(request: ResponsesRequest) -> None:
    """Say no to what can't be done.

    Raises:
        InvalidRequest: The request asks for it.
    """
    if request.background:
        raise InvalidRequest("Responses can't be made in the background here.", param="background")
    if request.conversation is not None:
        raise InvalidRequest(
            "There are no conversation objects here; previous_response_id continues a conversation.",
            param="conversation",
        )
    if request.prompt is not None:
        raise InvalidRequest("There are no stored prompts here; send instructions and input.", param="prompt")


def to_call(
    request: ResponsesRequest,
    items: Sequence[Placed],
    toolbox: Toolbox,
    hints: SessionHints,
    *,
    default_model: str,
    max_messages: int,
) -> ChatCall:
    """What a request means.

    Args:
        request: As it came.
        items: The whole conversation: what was kept and what came.
        toolbox: What it says about tools.
        hints: What its headers say of its session.
        default_model: The model of a request that names none.
        max_messages: The most items that are read.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    if len(items) > max_messages:
        raise InvalidRequest(f"At most {max_messages} items can be sent (MAX_MESSAGES).", param="input")
    return ChatCall(
        model=request.model or default_model,
        messages=conversation(request, items),
        tools=toolbox.use,
        output_format=_output_format(request.text.format if request.text else None),
        max_tokens=request.max_output_tokens,
        options=_options(request),
        **hints,
    )


def conversation(request: ResponsesRequest, items: Sequence[Placed]) -> tuple[Message, ...]:
    """The messages of a request.

    Raises:
        InvalidRequest: There are none, or one can't be read.
    """
    messages = to_messages(items)
    if request.instructions:
        messages.insert(0, Message("system", request.instructions))
    if not messages:
        raise InvalidRequest("An input is needed.", param="input")
    return tuple(messages)


def input_tokens(messages: Sequence[Message], toolbox: Toolbox) -> int:
    """Estimated tokens of everything that is sent: instructions, conversation and tools; images count nothing."""
    texts = [message.reasoning + message.text for message in messages]
    texts += [call.name + call.arguments for message in messages for call in message.tool_calls]
    tools = toolbox.use.tools if toolbox.use else ()
    texts += [tool.name + tool.description + json.dumps(tool.parameters, ensure_ascii=False) for tool in tools]
    return estimate("\n".join(texts))


def ignored_params(request: ResponsesRequest, items: Sequence[Placed], toolbox: Toolbox) -> list[str]:
    """What of a request the answer takes no account of, as far as its name can stand in a header."""
    fields = given_fields(request, _NOT_IGNORED).keys()
    tools = {f"tools.{kind}" for kind in toolbox.passed_over}
    kinds = {f"input.{kind}" for kind in passed_over(items)}
    return nameable(fields | tools | kinds)


def _output_format(form: TextFormat | None) -> OutputFormat:
    if form is None or form.type == "text":
        return PLAIN_TEXT
    if form.type == "json_object":
        return OutputFormat("json_object", place="text.format")
    if form.type != "json_schema":
        raise InvalidRequest("The format must be text, json_object or json_schema.", param="text.format.type")
    if form.json_schema is None:
        raise InvalidRequest("The format needs a schema.", param="text.format.schema")
    return OutputFormat(
        "json_schema",
        form.json_schema,
        form.name or "",
        form.description or "",
        strict=form.strict is True,
        place="text.format",
    )


def _options(request: ResponsesRequest) -> dict[str, object]:
    """Further fields, by the names that upstreams know."""
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "verbosity": request.text.verbosity if request.text else None,
    }
    return {name: value for name, value in options.items() if value is not None}
