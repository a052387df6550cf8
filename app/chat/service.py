"""One call from beginning to end: model, session, prompt, provider, memory, record."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from app.chat.answering import Said, as_deltas, in_one_piece, limited, limited_parts
from app.chat.asking import Asking
from app.chat.candidates import Candidate
from app.chat.emulated import ask_for_form
from app.chat.events import Answer, Ending, Event, Opening
from app.chat.session import CallSession, SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, FinishReason, Usage
from app.domain.conversation import LastTurn
from app.domain.errors import GatewayError
from app.domain.prompt import Prompt
from app.domain.tokens import estimate
from app.domain.usage import CallRecord, Outcome
from app.providers.base import ModelSpec
from app.providers.registry import ProviderRegistry, Target
from app.sessions.base import SessionStore


class ChatService:
    """Answers calls, whatever dialect they came in.

    Args:
        registry: Finds the providers of a model.
        sessions: Remembers conversations.
        policy: How sessions are treated.
        on_call: Told of every call when it is over. Must return at once: it may run while a task is being cancelled.
        on_texts: Told at the same time what was sent to the upstream and what it answered; None if nobody may know.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        sessions: SessionStore,
        policy: SessionPolicy,
        on_call: Callable[[CallRecord], None] = lambda _: None,
        on_texts: Callable[[str, str], None] | None = None,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._policy = policy
        self._on_call = on_call
        self._on_texts = on_texts

    async def complete(self, call: ChatCall, caller: Caller) -> Answer:
        """The whole answer.

        Raises:
            GatewayError: Whatever kept it from coming.
        """
        async with self._turn(call, caller) as turn:
            replay = turn.session.plan.replay
            if replay is not None:
                opening, completion, ending = turn.replay(replay)
            else:
                opening, completion = await _completed(turn)
                ending = await turn.end(completion, opening.prompt)
            return Answer(opening, completion.text, ending, completion.tool_calls, completion.reasoning)

    async def stream(self, call: ChatCall, caller: Caller) -> AsyncGenerator[Event, None]:
        """The answer in parts: an `Opening` (or several), the `Delta`s, one `Ending`.

        Raises:
            GatewayError: Whatever kept it from coming, or from going on.
        """
        async with self._turn(call, caller) as turn:
            replay = turn.session.plan.replay
            if replay is not None:
                opening, completion, ending = turn.replay(replay)
                yield opening
                for delta in as_deltas(completion):
                    yield delta
                yield ending
                return
            turn.said = said = Said()
            for candidate in turn.candidates():
                yield turn.opening(candidate.prompt)
                try:
                    async with aclosing(_in_parts(turn, candidate)) as deltas:
                        async for delta in deltas:
                            turn.answered()
                            said.add(delta)
                            yield delta
                except GatewayError as error:
                    if turn.upstream_seconds is not None:
                        raise  # once it has said a word, no other is asked
                    turn.asking.failed(candidate, error)
                else:
                    break
            else:
                raise turn.asking.refusal()
            yield await turn.end(said.completion(), candidate.prompt)

    def _turn(self, call: ChatCall, caller: Caller) -> "_Turn":
        targets = self._registry.resolve(call.model, call.provider)
        session = CallSession(self._sessions, self._policy, call, caller)
        return _Turn(call, caller, targets, session, self._on_call, self._on_texts)


class _Turn:
    """A call and what comes of it, to be answered in an `async with` block.

    Entering it takes the session; leaving it lets the session go and hands in the record, however far the call got.
    """

    __slots__ = (
        "_began",
        "_call",
        "_caller",
        "_completion",
        "_on_call",
        "_on_texts",
        "_prompt",
        "_target",
        "_usage",
        "asking",
        "said",
        "session",
        "upstream_seconds",
    )

    def __init__(
        self,
        call: ChatCall,
        caller: Caller,
        targets: tuple[Target, ...],
        session: CallSession,
        on_call: Callable[[CallRecord], None],
        on_texts: Callable[[str, str], None] | None,
    ) -> None:
        self.session = session
        self.asking = Asking(call, caller.id, targets)
        # What a streamed answer has said so far.
        self.said: Said | None = None
        # Seconds from the call's beginning until the upstream had answered, or said its first word.
        self.upstream_seconds: float | None = None
        self._began = time.perf_counter()
        self._call = call
        self._caller = caller
        self._on_call = on_call
        self._on_texts = on_texts
        self._target = targets[0]
        self._completion: Completion | None = None
        self._prompt: Prompt | None = None
        self._usage: Usage | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.session.__aenter__()
        except BaseException as error:
            self._hand_in(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.session.__aexit__(kind, error, traceback)
        except BaseException as late:
            self._hand_in(late)
            raise
        self._hand_in(error)

    def candidates(self) -> Iterator[Candidate]:
        """Who is to be asked, one after the other."""
        for candidate in self.asking.candidates(self.session.plan.messages, self._conversation_id()):
            self._target, self._prompt = candidate.target, candidate.prompt
            yield candidate

    def opening(self, prompt: Prompt) -> Opening:
        """How the call is being answered."""
        call = self._call
        return Opening(
            model=call.model,
            provider=self._target.provider.name,
            session_id=call.session.id if call.session else None,
            action=self.session.plan.action,
            prompt=prompt,
            options_taken=self.asking.candidate is not None and "options" in self._target.spec.abilities,
            fallback=tuple([f"{provider}={reason}" for provider, reason in self.asking.passed_over]),
        )

    def answered(self) -> None:
        """The upstream has answered, or begun to."""
        if self.upstream_seconds is None:
            self.upstream_seconds = time.perf_counter() - self._began

    def replay(self, last: LastTurn) -> tuple[Opening, Completion, Ending]:
        """The answer that was given before, with what is still known about its prompt."""
        limit = self._target.spec.prompt_limit
        self._prompt = prompt = Prompt("", last.prompt_size, limit, last.dropped, last.shortened)
        self._usage = last.usage
        self._completion = completion = Completion(last.text, last.finish_reason, last.usage, last.tool_calls)
        return self.opening(prompt), completion, Ending(last.finish_reason, last.usage, last.stop)

    async def end(self, completion: Completion, prompt: Prompt) -> Ending:
        """The answer is there: count it, and remember it.

        Raises:
            SessionStoreUnavailable: It could not be remembered, and the client relies on it.
        """
        self._completion = completion
        self._usage = usage = completion.usage or _estimated(prompt, completion)
        ending = Ending(_finish_reason(completion), usage, completion.stop)
        await self.session.remember(completion, ending, prompt)
        return ending

    def _conversation_id(self) -> str | None:
        session = self._call.session
        return None if session is None else f"{self._caller.id}\n{session.id}\n{self.session.began}"

    def _hand_in(self, error: BaseException | None) -> None:
        """Tell what became of the call."""
        self._on_call(self._record(error))
        candidate = self.asking.candidate
        if self._on_texts is not None and candidate is not None:
            said = self._completion or self.said
            self._on_texts(candidate.text, said.text if said else "")

    def _record(self, error: BaseException | None) -> CallRecord:
        outcome: Outcome = "completed" if error is None else "failed" if isinstance(error, Exception) else "abandoned"
        error_code = None
        if outcome == "failed":
            error_code = error.code if isinstance(error, GatewayError) else "internal_error"
        session, prompt = self.session, self._prompt
        return CallRecord(
            caller_id=self._caller.id,
            model=_label(self._target.spec),
            provider=self._target.provider.name,
            outcome=outcome,
            error_code=error_code,
            action=session.plan.action if session.is_open else None,
            prompt_size=prompt.size if prompt else None,
            dropped=prompt.dropped if prompt else None,
            usage=self._usage,
            seconds=time.perf_counter() - self._began,
            upstream_seconds=self.upstream_seconds,
            session=session.key.digest if session.key else None,
            passed_over=tuple(self.asking.passed_over),
        )


async def _completed(turn: _Turn) -> tuple[Opening, Completion]:
    """The answer of the first who has one."""
    for candidate in turn.candidates():
        try:
            completion = await _asked(turn, candidate)
        except GatewayError as error:
            turn.asking.failed(candidate, error)
        else:
            turn.answered()
            return turn.opening(candidate.prompt), limited(completion, turn.asking.limiter(candidate))
    raise turn.asking.refusal()


def _asked(turn: _Turn, candidate: Candidate) -> Awaitable[Completion]:
    """The answer of one provider, whole."""
    if candidate.emulator is not None:
        return ask_for_form(candidate, candidate.emulator, turn.asking.request)
    return candidate.target.provider.create_completion(turn.asking.request(candidate))


def _in_parts(turn: _Turn, candidate: Candidate) -> AsyncGenerator[Delta, None]:
    """The answer of one provider, part by part."""
    if candidate.emulator is not None:
        parts = in_one_piece(_asked(turn, candidate))
    else:
        parts = candidate.target.provider.stream_completion(turn.asking.request(candidate))
    limiter = turn.asking.limiter(candidate)
    return parts if limiter is None else limited_parts(parts, limiter)


def _finish_reason(completion: Completion) -> FinishReason:
    """Why an answer ended; `tool_calls` always, and only, if it ended by itself and there are any."""
    if completion.finish_reason in ("stop", "tool_calls"):
        return "tool_calls" if completion.tool_calls else "stop"
    return completion.finish_reason


def _label(spec: ModelSpec) -> str:
    """The model's name in records, which must be one of a bounded number."""
    return spec.id if spec.listed else "unlisted"


def _estimated(prompt: Prompt, completion: Completion) -> Usage:
    calls = "".join([call.name + call.arguments for call in completion.tool_calls])
    written = estimate(completion.text + completion.reasoning + calls)
    return Usage(estimate(prompt.text) if prompt.text else prompt.size, written)
