"""Reads responses requests: from the wire to the call that is meant. Every fault is named by its `param`."""

import json
import time
from collections.abc import Sequence

from app.api.dialects import DialectServices, Exchange
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.responses.ids import new_response_id
from app.api.responses.items import Placed, items_of_input, passed_over, to_messages
from app.api.responses.kept import KeptResponses
from app.api.responses.output import ResponseDraft, echo_of
from app.api.responses.schemas import ResponsesRequest
from app.api.responses.toolbox import Toolbox, read_tools
from app.api.responses.write import PendingResponse
from app.api.wire.body import given_fields, nameable, parse_body
from app.api.wire.faults import missing_parameter, too_many, unsupported_parameter
from app.api.wire.formats import output_format
from app.domain.chat import PLAIN_TEXT, ChatCall, Message
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
# What upstreams know, mostly under the same name.
_OPTIONS = ("reasoning", "temperature", "top_p")
_KNOWN = _HONOURED.union(_INCONSEQUENTIAL, _OPTIONS)
_NAMES = {"max_tokens": "max_output_tokens", "response_format.schema": "text.format.schema"}


async def read(body: bytes, context: RequestContext, services: DialectServices) -> Exchange:
    """Read a responses request, and what it continues."""
    request = parse_body(ResponsesRequest, body)
    refuse_impossible(request)
    toolbox = understand_tools(request)
    hints = session_hints(context.headers, None)
    own = items_of_input(request.input)
    kept = KeptResponses(services.snapshots, max_characters=services.snapshot_max_characters)
    items = await kept.conversation(context.caller.id, request.previous_response_id, own)
    call = to_call(
        request,
        items,
        toolbox,
        hints,
        default_model=services.registry.default_model,
        max_messages=services.max_messages,
    )
    store = request.store is not False
    draft = ResponseDraft(new_response_id(), int(time.time()), call.model, echo_of(request), store)
    pending = PendingResponse(draft, items=items, toolbox=toolbox, kept=kept, caller_id=context.caller.id)
    return Exchange(
        calls=(call,),
        stream=bool(request.stream),
        write=pending.write,
        encoder=pending.encoder,
        ignored=ignored_options(request),
        unserved=unserved(request, own, toolbox),
        names=_NAMES,
        keep=pending.keep,
    )


def understand_tools(request: ResponsesRequest) -> Toolbox:
    """Read what a request says about tools.

    Raises:
        InvalidRequest: A tool or the choice of one is wrong.
    """
    return read_tools(request.tools or (), request.tool_choice, parallel=request.parallel_tool_calls is not False)


def refuse_impossible(request: ResponsesRequest) -> None:
    """Refuse what can't be done.

    Raises:
        InvalidRequest: The request asks for it.
    """
    if request.background:
        raise unsupported_parameter("background")
    if request.conversation is not None:
        raise unsupported_parameter("conversation", "Use previous_response_id to continue a conversation.")
    if request.prompt is not None:
        raise unsupported_parameter("prompt", "Send instructions and input.")


def to_call(
    request: ResponsesRequest,
    items: Sequence[Placed],
    toolbox: Toolbox,
    hints: SessionHints,
    *,
    default_model: str,
    max_messages: int,
) -> ChatCall:
    """The call that a request means.

    Args:
        request: The request as it came.
        items: The whole conversation: what was kept and what came.
        toolbox: What it says about tools.
        hints: What its headers say of its session.
        default_model: The model of a request that names none.
        max_messages: Items that may come.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    if len(items) > max_messages:
        raise too_many("input", max_messages, len(items), "MAX_MESSAGES bounds it.")
    form = request.text.format if request.text else None
    return ChatCall(
        model=request.model or default_model,
        messages=conversation(request, items),
        tools=toolbox.use,
        output_format=output_format(form, "text.format", "text.format.schema") if form else PLAIN_TEXT,
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
        of_chat = "messages" in (request.model_extra or {})
        raise missing_parameter("input", "Requests with 'messages' belong to /v1/chat/completions." if of_chat else "")
    return tuple(messages)


def input_tokens(messages: Sequence[Message], toolbox: Toolbox) -> int:
    """Estimated tokens of everything that is sent: instructions, conversation and tools; images count nothing."""
    texts = [message.reasoning + message.text for message in messages]
    texts += [call.name + call.arguments for message in messages for call in message.tool_calls]
    tools = toolbox.use.tools if toolbox.use else ()
    texts += [tool.name + tool.description + json.dumps(tool.parameters, ensure_ascii=False) for tool in tools]
    return estimate("\n".join(texts))


def ignored_options(request: ResponsesRequest) -> list[str]:
    """The fields that count only if the upstream takes options."""
    return [name for name in _OPTIONS if getattr(request, name) is not None]


def unserved(request: ResponsesRequest, items: Sequence[Placed], toolbox: Toolbox) -> list[str]:
    """What of a request has no effect whoever answers, as far as its name can stand in a header."""
    fields = given_fields(request, _KNOWN).keys()
    tools = {f"tools.{kind}" for kind in toolbox.passed_over}
    kinds = {f"input.{kind}" for kind in passed_over(items)}
    return nameable(fields | tools | kinds)


def _options(request: ResponsesRequest) -> dict[str, object]:
    """Further fields, by the names that upstreams know."""
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "verbosity": request.text.verbosity if request.text else None,
    }
    return {name: value for name, value in options.items() if value is not None}
