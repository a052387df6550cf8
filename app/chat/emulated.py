"""An answer of a certain form from a model that knows nothing of forms: it is told what is wanted, twice if need be."""

from collections.abc import Callable

from app.chat.candidates import Candidate, reminded
from app.domain.chat import Completion, Usage
from app.domain.emulation.emulator import Emulator
from app.domain.emulation.reading import Reading, Unreadable
from app.domain.errors import ContextTooLong, MalformedAnswer
from app.domain.tokens import estimate
from app.providers.base import CompletionRequest


async def ask_for_form(
    candidate: Candidate, emulator: Emulator, request_of: Callable[[Candidate], CompletionRequest]
) -> Completion:
    """The answer, with what calls the model makes, or of the wanted form.

    A reply that can't be read is asked for once more, with what was wrong about it; one that was cut off or filtered is
    handed on, as its ending says why. Calls that the model makes by its own means are the answer.

    Args:
        request_of: Makes the request for a candidate.

    Raises:
        MalformedAnswer: The second reply was no better, and there is nothing else to make of it.
        GatewayError: The upstream failed.
    """
    provider = candidate.target.provider
    first = await provider.create_completion(request_of(candidate))
    try:
        return _completion(_read(emulator, first), candidate, first)
    except Unreadable as unreadable:
        problem = unreadable
    try:
        again = reminded(candidate, first.text, problem.reminder)
    except ContextTooLong:
        return _completion(_as_it_is(problem), candidate, first)
    second = await provider.create_completion(request_of(again))
    try:
        reading = _read(emulator, second)
    except Unreadable as unreadable:
        reading = _as_it_is(unreadable)
    return _completion(reading, again, second, before=_usage(candidate, first))


def _read(emulator: Emulator, reply: Completion) -> Reading:
    if reply.tool_calls:
        return Reading(reply.text, reply.tool_calls)
    try:
        return emulator.read(reply.text)
    except Unreadable:
        if reply.finish_reason in ("length", "content_filter"):
            return Reading(reply.text)
        raise


def _as_it_is(problem: Unreadable) -> Reading:
    if problem.fallback is None:
        raise MalformedAnswer(problem.message) from problem
    return problem.fallback


def _completion(reading: Reading, candidate: Candidate, reply: Completion, before: Usage | None = None) -> Completion:
    usage = _usage(candidate, reply)
    if before is not None:
        usage += before
    return Completion(reading.text, reply.finish_reason, usage, reading.calls, reply.reasoning)


def _usage(candidate: Candidate, reply: Completion) -> Usage:
    prompt = candidate.prompt
    read = estimate(prompt.text) if prompt.text else prompt.size
    return reply.usage or Usage(read, estimate(reply.text))
