"""Tools and formats from a model that only writes text: it is told what is wanted, and asked again if need be."""

from collections.abc import Callable

from app.chat.attempts import Attempt, reminded
from app.chat.deltas import usage_with
from app.domain.chat import Completion, Usage
from app.domain.emulation.emulator import Emulator, Reading, Unreadable
from app.domain.errors import ContextTooLong, MalformedAnswer


async def ask_emulated(attempt: Attempt, emulator: Emulator, note_replies: Callable[[Usage], None]) -> Completion:
    """The answer, with the calls that the model makes, or in the wanted format.

    A reply that can't be read is asked for once more, with what was wrong about it. One that was cut off or filtered is
    handed on: its finish reason says why. Calls that the model makes by its own means are the answer.

    Args:
        note_replies: Told the tokens of all replies, as soon as there is another one: they are used, whatever comes.

    Raises:
        MalformedAnswer: The second reply was no better, and nothing else can be made of it.
        GatewayError: The upstream failed.
    """
    provider = attempt.target.provider
    first = await provider.create_completion(attempt.request)
    note_replies(usage := _usage(attempt, first))
    try:
        return _completion(_read(emulator, first), first, usage)
    except Unreadable as unreadable:
        problem = unreadable
    try:
        again = reminded(attempt, first.text, problem.reminder)
    except ContextTooLong:
        return _completion(_as_it_is(problem), first, usage)
    second = await provider.create_completion(again.request)
    note_replies(usage := usage + _usage(again, second))
    try:
        reading = _read(emulator, second)
    except Unreadable as unreadable:
        reading = _as_it_is(unreadable)
    return _completion(reading, second, usage)


def _read(emulator: Emulator, reply: Completion) -> Reading:
    if reply.tool_calls or reply.refusal:
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


def _completion(reading: Reading, reply: Completion, usage: Usage) -> Completion:
    return Completion(
        reading.text,
        reply.finish_reason,
        usage,
        reading.calls,
        reply.reasoning,
        refusal=reply.refusal,
        # What is told about each token fits its own text only.
        extras=reply.extras if reading.text == reply.text else None,
    )


def _usage(attempt: Attempt, reply: Completion) -> Usage:
    return usage_with(reply, attempt.request.prompt.tokens)
