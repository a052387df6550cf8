"""An answer's deltas: cut at the client's limits, gathered into a whole answer, and made of one."""

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from app.domain.alternation import alternating
from app.domain.chat import (
    Completion,
    Delta,
    Extras,
    FinishReason,
    ToolCall,
    ToolCallDelta,
    Usage,
    merged_extras,
)
from app.domain.output_limiter import OutputLimiter
from app.domain.tokens import estimate


async def limit_deltas(deltas: AsyncGenerator[Delta, None], limiter: OutputLimiter) -> AsyncGenerator[Delta, None]:
    """Pass an answer on up to the place where the client wants it to end.

    Args:
        deltas: The provider's; closed in the end.
        limiter: Finds that place.
    """
    whole = False
    reason: FinishReason | None = None
    usage: Usage | None = None
    async with aclosing(deltas):
        async for delta in deltas:
            whole, reason, usage = delta.whole or whole, delta.finish_reason or reason, delta.usage or usage
            text = limiter.feed(delta.text)
            if text or delta.reasoning or delta.tool_call or delta.refusal or delta.extras:
                yield replace(delta, text=text, finish_reason=None, usage=None)
            if limiter.finish_reason is not None:
                break
    rest, ended = limiter.finish(), limiter.finish_reason
    yield Delta(rest, whole=whole, finish_reason=ended or reason, usage=usage, stop=limiter.stopped_by)


def limit_completion(completion: Completion, limiter: OutputLimiter) -> Completion:
    """Cut a whole answer at the place where the client wants it to end, if that place is in it."""
    text = limiter.feed(completion.text) + limiter.finish()
    if limiter.finish_reason is None:
        return completion
    # Calls that would have come after that place were never made. The tokens were used all the same.
    return Completion(
        text,
        limiter.finish_reason,
        completion.usage,
        reasoning=completion.reasoning,
        stop=limiter.stopped_by,
        extras=completion.extras,
    )


async def stream_whole(
    answer: Awaitable[Completion], limiter: OutputLimiter | None = None
) -> AsyncGenerator[Delta, None]:
    """Stream an answer that only comes whole, up to the place where the client wants it to end."""
    completion = await answer
    for delta in as_deltas(completion if limiter is None else limit_completion(completion, limiter)):
        yield delta


def as_deltas(completion: Completion) -> list[Delta]:
    """Take a whole answer apart; the last delta says how it ended."""
    deltas = list(completion.deltas)
    if not deltas:
        deltas.append(Delta(completion.text, whole=True, reasoning=completion.reasoning))
        deltas += [
            Delta(tool_call=ToolCallDelta(index, call.id, call.name, call.arguments, call.extras))
            for index, call in enumerate(completion.tool_calls)
        ]
    if completion.refusal or completion.extras:
        # They are about what was said: dialects with items for text and calls look for them there.
        said = [place for place, delta in enumerate(deltas, 1) if delta.text]
        deltas.insert(said[-1] if said else len(deltas), Delta(refusal=completion.refusal, extras=completion.extras))
    deltas.append(Delta(finish_reason=completion.finish_reason, usage=completion.usage, stop=completion.stop))
    return deltas


def estimated_usage(completion: Completion, prompt_tokens: int) -> Usage:
    """The tokens of an answer that nobody has counted: of all that was thought, said and called."""
    said = ""
    for answer in (completion, *completion.others):
        said += answer.text + answer.reasoning + answer.refusal
        for call in answer.tool_calls:
            said += call.name + call.arguments
    return Usage(prompt_tokens, estimate(said), estimated=True)


def usage_with(completion: Completion, prompt_tokens: int) -> Usage:
    """An answer's usage: what the upstream has counted, estimated where it hasn't. It may count one side only, or say
    that there was nothing where there was something."""
    usage = completion.usage
    if usage is not None and usage.prompt_tokens and usage.completion_tokens:
        return usage
    estimate_ = estimated_usage(completion, prompt_tokens)
    if usage is None:
        return estimate_
    read, written = usage.prompt_tokens or prompt_tokens, usage.completion_tokens or estimate_.completion_tokens
    if (read, written) == (usage.prompt_tokens, usage.completion_tokens):
        return usage
    return replace(usage, prompt_tokens=read, completion_tokens=written, estimated=True)


def gather(deltas: Sequence[Delta]) -> Completion:
    """Put an answer together from all its deltas."""
    calls: dict[int, list[ToolCallDelta]] = {}
    refusal = ""
    extras: list[Extras] = []
    reason: FinishReason | None = None
    usage: Usage | None = None
    stop: str | None = None
    others: dict[int, list[Delta]] = {}
    for delta in deltas:
        if delta.choice:
            others.setdefault(delta.choice, []).append(replace(delta, choice=0))
            continue
        if delta.tool_call is not None:
            calls.setdefault(delta.tool_call.index, []).append(delta.tool_call)
        if delta.refusal:
            refusal += delta.refusal
        if delta.extras:
            extras.append(delta.extras)
        reason, usage, stop = delta.finish_reason or reason, delta.usage or usage, delta.stop or stop
    if others:
        first = gather([delta for delta in deltas if not delta.choice])
        return replace(first, others=tuple([gather(parts) for _, parts in sorted(others.items())]))
    return Completion(
        "".join([delta.text for delta in deltas]),
        reason or "stop",
        usage,
        tuple([_call(parts) for parts in calls.values()]) if calls else (),
        "".join([delta.reasoning for delta in deltas]),
        stop,
        alternating(deltas),
        refusal,
        merged_extras(extras) if extras else None,
    )


def _call(parts: Sequence[ToolCallDelta]) -> ToolCall:
    extras = [part.extras for part in parts if part.extras]
    return ToolCall(
        parts[0].id or "",
        parts[0].name or "",
        "".join([part.arguments for part in parts]),
        merged_extras(extras) if extras else None,
    )
