"""The parts of an answer: making them, ending them, gathering them."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from app.domain.chat import Completion, Delta, FinishReason, ToolCall, ToolCallDelta, Usage
from app.domain.output import OutputLimiter
from app.domain.tokens import estimate


async def in_parts(parts: AsyncGenerator[Delta, None], limiter: OutputLimiter | None) -> AsyncGenerator[Delta, None]:
    """The answer in parts.

    Args:
        parts: As they come from the provider; closed in the end.
        limiter: Ends the answer where the client wants it to end, if the provider can't.
    """
    whole = False
    reason: FinishReason | None = None
    usage: Usage | None = None
    async with aclosing(parts):
        async for delta in parts:
            if limiter is None:
                yield delta
                continue
            whole, reason, usage = delta.whole or whole, delta.finish_reason or reason, delta.usage or usage
            text = limiter.feed(delta.text)
            if text or delta.reasoning or delta.tool_call:
                yield Delta(text, whole=delta.whole, reasoning=delta.reasoning, tool_call=delta.tool_call)
            if limiter.finish_reason is not None:
                break
    if limiter is not None:
        rest, ended = limiter.finish(), limiter.finish_reason
        yield Delta(rest, whole=whole, finish_reason=ended or reason, usage=usage, stop=limiter.stopped_by)


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
        self.usage: Usage | None = None
        self.stop: str | None = None

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
        self.usage = delta.usage or self.usage
        self.stop = delta.stop or self.stop

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """The whole of what was thought."""
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All calls, in order."""
        return tuple(ToolCall(call_id, name, "".join(parts)) for call_id, name, parts in self._calls.values())

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended; `tool_calls` always, and only, if it ended by itself and there are any."""
        reason = self._finish_reason or "stop"
        if reason in ("stop", "tool_calls"):
            return "tool_calls" if self._calls else "stop"
        return reason

    def tokens(self) -> int:
        """Estimated tokens of everything."""
        calls = "".join(call.name + call.arguments for call in self.tool_calls)
        return estimate(self.text + self.reasoning + calls)
