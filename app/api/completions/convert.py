"""Between the wire and what it means. Pure; every fault of the request is found here and named by its `param`."""

from collections.abc import Sequence

from app.api.bodies import given_fields, nameable
from app.api.completions.schemas import CompletionRequest
from app.api.headers import SessionHints
from app.api.wire import stop_texts
from app.domain.chat import ChatCall, Message
from app.domain.errors import InvalidRequest

# What is looked at; some only to be refused.
_HONOURED = frozenset(
    {"prompt", "model", "stream", "stream_options", "max_tokens", "stop", "echo", "suffix", "n", "best_of", "logprobs"}
)
# Of no consequence for the answer: nothing is lost when it is not looked at.
_INCONSEQUENTIAL = frozenset({"user"})
_NOT_IGNORED = _HONOURED | _INCONSEQUENTIAL
_MOST_PROMPTS = 20
# The fields by which the layers below name what is wrong, in the words of this dialect.
FIELD_NAMES = {"messages": "prompt"}


def prompts_of(request: CompletionRequest) -> list[str]:
    """The texts to go on from.

    Raises:
        InvalidRequest: There are none or too many, or they are no texts.
    """
    prompt = request.prompt
    prompts: list[str] = []
    for entry in [prompt] if isinstance(prompt, str) else prompt or []:
        if not isinstance(entry, str):
            raise InvalidRequest("A prompt is a text here: tokens can't be turned back into one.", param="prompt")
        prompts.append(entry)
    if not prompts:
        raise InvalidRequest("A prompt is needed.", param="prompt")
    if len(prompts) > _MOST_PROMPTS:
        raise InvalidRequest(f"At most {_MOST_PROMPTS} prompts can be sent at once.", param="prompt")
    return prompts


def to_calls(
    request: CompletionRequest, prompts: Sequence[str], hints: SessionHints, *, default_model: str
) -> list[ChatCall]:
    """What a request means: a call for each prompt, which is a user's message.

    Args:
        request: As it came.
        prompts: Its texts.
        hints: What its headers say of its session.
        default_model: The model of a request that names none.

    Raises:
        InvalidRequest: It asks for something that can't be done.
    """
    _refuse_impossible(request)
    if len(prompts) > 1 and request.stream:
        raise InvalidRequest("A stream answers one prompt.", param="prompt")
    if len(prompts) > 1 and hints["session"] is not None:
        raise InvalidRequest("Several prompts can't be turns of one session.", param="prompt")
    return [
        ChatCall(
            model=request.model or default_model,
            messages=(Message("user", prompt),),
            max_tokens=request.max_tokens,
            stop=stop_texts(request.stop),
            options=given_fields(request, _HONOURED),
            **hints,
        )
        for prompt in prompts
    ]


def ignored_params(request: CompletionRequest) -> list[str]:
    """The fields of a request that the answer takes no account of, as far as their names can stand in a header."""
    return nameable(given_fields(request, _NOT_IGNORED))


def _refuse_impossible(request: CompletionRequest) -> None:
    if request.n not in (None, 1):
        raise InvalidRequest("This model gives one answer at a time: n must be 1.", param="n")
    if request.best_of not in (None, 1):
        raise InvalidRequest("This model gives one answer at a time: best_of must be 1.", param="best_of")
    if request.logprobs not in (None, False):
        raise InvalidRequest("This model doesn't tell how probable its words are.", param="logprobs")
    if request.suffix:
        raise InvalidRequest("This model can't fill in the middle of a text.", param="suffix")
