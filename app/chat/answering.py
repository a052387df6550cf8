"""The parts of an answer: making them, ending them, gathering them."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from app.domain.chat import Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage
from app.domain.output import OutputLimiter


async def limited_parts(parts: AsyncGenerator[Delta, None], limiter: OutputLimiter) -> AsyncGenerator[Delta, None]:
    """An answer in parts, ended where the client wants it to end.

    Args:
        parts: As they come from the provider; closed in the end.
        limiter: Finds that place.
    """
    whole = False
    reason: FinishReason | None = None
    usage: Usage | None = None
    async with aclosing(parts):
        async for delta in parts:
            whole, reason, usage = delta.whole or whole, delta.finish_reason or reason, delta.usage or usage
            text = limiter.feed(delta.text)
            if text or delta.reasoning or delta.tool_call:
                yield Delta(text, whole=delta.whole, reasoning=delta.reasoning, tool_call=delta.tool_call)
            if limiter.finish_reason is not None:
                break
    rest, ended = limiter.finish(), limiter.finish_reason
    yield Delta(rest, whole=whole, finish_reason=ended or reason, usage=usage, stop=limiter.stopped_by)


def limited(completion: Completion, limiter: OutputLimiter | None) -> Completion:
    """A whole answer, ended where the client wants it to end, if the limiter finds that place in it."""
    if limiter is None:
        return completion
    text = limiter.feed(completion.text) + limiter.finish()
    if limiter.finish_reason is None:
        return completion
    # What would have come after that place was never said: calls, or the upstream's count.
    return Completion(text, limiter.finish_reason, reasoning=completion.reasoning, stop=limiter.stopped_by)


def as_deltas(completion: Completion) -> list[Delta]:
    """A whole answer in parts; the last one tells how it ended."""
    deltas = [Delta(completion.text, whole=True, reasoning=completion.reasoning)]
    deltas += [
        Delta(tool_call=ToolCallDelta(index, call.id, call.name, call.arguments))
        for index, call in enumerate(completion.tool_calls)
    ]
    deltas.append(Delta(finish_reason=completion.finish_reason, usage=completion.usage, stop=completion.stop))
    return deltas


async def in_one_piece(answer: Awaitable[Completion]) -> AsyncGenerator[Delta, None]:
    """A whole answer as the parts it is handed on in."""
    for delta in as_deltas(await answer):
        yield delta


class Said:
    """What an answer has said so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._stop: str | None = None

    def add(self, delta: Delta) -> None:
        """Take the next part."""
        if delta.text:
            self._texts.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.tool_call is not None:
            part = delta.tool_call
            call = self._calls.setdefault(part.index, (part.id or "", part.name or "", []))
            call[2].append(part.arguments)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        self._stop = delta.stop or self._stop

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._texts)

    def completion(self) -> Completion:
        """All of it."""
        return Completion(
            self.text,
            self._finish_reason or "stop",
            self._usage,
            tuple([ToolCall(call_id, name, "".join(parts)) for call_id, name, parts in self._calls.values()]),
            "".join(self._reasoning),
            self._stop,
        )
