"""Reads legacy completions: from the wire to the calls that are meant. Every fault is named by its `param`."""

from collections.abc import Mapping, Sequence
from functools import partial

from app.api.completions.schemas import TextCompletionRequest
from app.api.completions.stream import CompletionEncoder
from app.api.completions.write import write_completion
from app.api.dialects import DialectServices, Exchange
from app.api.request import RequestContext, SessionHints, session_hints
from app.api.wire.body import given_fields, nameable, parse_body
from app.api.wire.faults import missing_parameter, too_many, unsupported_parameter, unsupported_value
from app.api.wire.openai import stop_texts
from app.api.wire.other_models import take_other_models
from app.domain.chat import ChatCall, Message
from app.domain.errors import InvalidRequest

# What is looked at; some only to be refused.
_HONOURED = frozenset(
    {"prompt", "model", "stream", "stream_options", "max_tokens", "stop", "echo", "suffix", "n", "best_of", "logprobs"}
)
# Of no consequence for the answer: nothing is lost when it is not looked at.
_INCONSEQUENTIAL = frozenset({"user"})
_MAX_PROMPTS = 20


async def read(body: bytes, context: RequestContext, services: DialectServices) -> Exchange:
    """Read a completion request. It opens no session by its `user`."""
    request = parse_body(TextCompletionRequest, body)
    prompts = prompts_of(request)
    options = given_fields(request, _HONOURED)
    unserved = take_other_models(options) if options else []
    calls = to_calls(request, prompts, session_hints(context.headers, None), services.registry.default_model, options)
    echoed = prompts if request.echo else [""] * len(prompts)
    include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    return Exchange(
        calls=calls,
        stream=bool(request.stream),
        write=partial(write_completion, echoed=echoed),
        encoder=partial(CompletionEncoder, include_usage=include_usage, echo=echoed[0]),
        ignored=nameable(options.keys() - _INCONSEQUENTIAL),
        unserved=nameable(unserved),
    )


def prompts_of(request: TextCompletionRequest) -> list[str]:
    """The texts to go on from.

    Raises:
        InvalidRequest: There are none or too many, or they are no texts.
    """
    prompt = request.prompt
    prompts: list[str] = []
    for entry in [prompt] if isinstance(prompt, str) else prompt or []:
        if not isinstance(entry, str):
            raise InvalidRequest(
                "prompt must be text: tokens are not supported.", param="prompt", code="unsupported_value"
            )
        prompts.append(entry)
    if not prompts:
        raise missing_parameter("prompt")
    if len(prompts) > _MAX_PROMPTS:
        raise too_many("prompt", _MAX_PROMPTS, len(prompts))
    return prompts


def to_calls(
    request: TextCompletionRequest,
    prompts: Sequence[str],
    hints: SessionHints,
    default_model: str,
    options: Mapping[str, object],
) -> tuple[ChatCall, ...]:
    """The calls that a request means: one for each prompt, which is a user's message.

    Args:
        request: The request as it came.
        prompts: Its texts.
        hints: What its headers say of its session.
        default_model: The model of a request that names none.
        options: Its fields that are passed on as they are.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    _refuse_impossible(request)
    if len(prompts) > 1 and request.stream:
        raise InvalidRequest("A stream answers one prompt only.", param="prompt", code="unsupported_value")
    if len(prompts) > 1 and hints["session"] is not None:
        raise InvalidRequest("Several prompts can't be turns of one session.", param="prompt", code="unsupported_value")
    return tuple(
        ChatCall(
            model=request.model or default_model,
            messages=(Message("user", prompt),),
            max_tokens=request.max_tokens,
            stop=stop_texts(request.stop),
            options=options,
            **hints,
        )
        for prompt in prompts
    )


def _refuse_impossible(request: TextCompletionRequest) -> None:
    if request.n not in (None, 1):
        raise unsupported_value("n", request.n, "Only 1 is supported: it gives one answer at a time.")
    if request.best_of not in (None, 1):
        raise unsupported_value("best_of", request.best_of, "Only 1 is supported: it gives one answer at a time.")
    if request.logprobs not in (None, False):
        raise unsupported_parameter("logprobs")
    if request.suffix:
        raise unsupported_parameter("suffix")
