"""One call from beginning to end: model, session, prompt, provider, memory, record."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from msgspec import Struct

from app.chat.answering import Said, as_deltas, in_one_piece, in_parts
from app.chat.candidates import Candidate, PassedOver, candidates
from app.chat.emulated import ask_for_form
from app.chat.events import Answer, Ending, Event, Opening
from app.domain.caller import Caller
from app.domain.chat import PLAIN_TEXT, ChatCall, Completion, Delta, Message, Usage
from app.domain.conversation import (
    LastTurn,
    Plan,
    SessionKey,
    SessionRecord,
    fingerprint,
    is_full_history,
    plan,
    remember,
)
from app.domain.errors import GatewayError, SessionStoreUnavailable, UpstreamError
from app.domain.output import OutputLimiter
from app.domain.prompt import Prompt
from app.domain.tokens import estimate
from app.domain.tracing import Trace, no_trace
from app.domain.usage import CallRecord, Outcome
from app.providers.base import CompletionRequest, ModelSpec
from app.providers.registry import ProviderRegistry, Target
from app.sessions.base import HeldSession, SessionStore


class SessionPolicy(Struct, frozen=True):
    """How sessions are treated.

    Args:
        replay_seconds: For how long a request that is sent again gets the answer of the first time.
        max_characters: The most that is remembered of one session.
    """

    replay_seconds: float = 60.0
    max_characters: int = 200_000


@dataclass(slots=True)
class _Progress:
    """What has come of a call so far; becomes its record, however far it got."""

    caller_id: str
    model: str
    provider: str
    started: float
    decided: Plan | None = None
    prompt: Prompt | None = None
    upstream_seconds: float | None = None
    usage: Usage | None = None
    session: str | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    candidate: Candidate | None = None
    said: Said = field(default_factory=Said)

    def asked(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.provider = candidate.target.provider.name
        self.model = _label(candidate.target.spec)
        self.prompt = candidate.prompt

    def upstream_answered(self) -> None:
        if self.upstream_seconds is None:
            self.upstream_seconds = time.perf_counter() - self.started

    def record(self, outcome: Outcome, error_code: str | None) -> CallRecord:
        return CallRecord(
            caller_id=self.caller_id,
            model=self.model,
            provider=self.provider,
            outcome=outcome,
            error_code=error_code,
            action=self.decided.action if self.decided else None,
            prompt_size=self.prompt.size if self.prompt else None,
            dropped=self.prompt.dropped if self.prompt else None,
            usage=self.usage,
            seconds=time.perf_counter() - self.started,
            upstream_seconds=self.upstream_seconds,
            session=self.session,
            passed_over=tuple(self.passed_over),
        )


class _Turn(Struct, frozen=True):
    """A call that is ready to be answered."""

    call: ChatCall
    caller: Caller
    targets: tuple[Target, ...]
    held: HeldSession | None
    decided: Plan
    session_began: float
    deadline: float
    progress: _Progress

    def opening(self, prompt: Prompt, *, options_taken: bool = False) -> Opening:
        return Opening(
            model=self.call.model,
            provider=self.progress.provider,
            session_id=self.call.session.id if self.call.session else None,
            action=self.decided.action,
            prompt=prompt,
            options_taken=options_taken,
            fallback=tuple(f"{provider}={reason}" for provider, reason in self.progress.passed_over),
        )

    def request(self, candidate: Candidate, *, deadline: float, retries: bool) -> CompletionRequest:
        call, abilities = self.call, candidate.target.spec.abilities
        return CompletionRequest(
            model=candidate.target.spec,
            prompt=candidate.prompt,
            messages=candidate.messages,
            caller_id=self.caller.id,
            conversation_id=self._conversation_id(),
            options=call.options if "options" in abilities else {},
            tools=call.tools if "tools" in abilities else None,
            output_format=call.output_format if call.output_format.kind in abilities else PLAIN_TEXT,
            max_tokens=call.max_tokens,
            # What is read from a reply is ended here: a stop text within a call would leave half of it.
            stop=() if candidate.emulator else call.stop,
            deadline=deadline,
            retries=retries,
        )

    def _conversation_id(self) -> str | None:
        if self.call.session is None:
            return None
        return f"{self.caller.id}\n{self.call.session.id}\n{self.session_began}"


class ChatService:
    """Answers calls, whatever dialect they came in.

    Args:
        registry: Finds the providers of a model.
        sessions: Remembers conversations.
        policy: How sessions are treated.
        on_call: Told of every call when it is over. Must return at once: it may run while a task is being cancelled.
        on_texts: Told at the same time what was sent to the upstream and what it answered; None if nobody may know.
        trace: Marks the work of the session store.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        sessions: SessionStore,
        policy: SessionPolicy,
        on_call: Callable[[CallRecord], None] = lambda _: None,
        on_texts: Callable[[str, str], None] | None = None,
        trace: Trace = no_trace,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._policy = policy
        self._on_call = on_call
        self._on_texts = on_texts
        self._trace = trace

    async def complete(self, call: ChatCall, caller: Caller) -> Answer:
        """The whole answer.

        Raises:
            GatewayError: Whatever kept it from coming.
        """
        said = Said()
        async with aclosing(self._events(call, caller, said, stream=False)) as events:
            async for event in events:
                if isinstance(event, Opening):
                    opening = event
                elif isinstance(event, Ending):
                    ending = event
        return Answer(opening, said.text, ending, said.tool_calls, said.reasoning)

    def stream(self, call: ChatCall, caller: Caller) -> AsyncGenerator[Event, None]:
        """The answer in parts: an `Opening` (or several), the `Delta`s, one `Ending`.

        Raises:
            GatewayError: Whatever kept it from coming, or from going on.
        """
        return self._events(call, caller, Said(), stream=True)

    async def _events(self, call: ChatCall, caller: Caller, said: Said, *, stream: bool) -> AsyncGenerator[Event, None]:
        async with self._turn(call, caller) as turn:
            turn.progress.said = said
            replay = turn.decided.replay
            if replay is not None:
                turn.progress.prompt = prompt = _replayed_prompt(replay, turn.targets[0])
                yield turn.opening(prompt)
                for delta in as_deltas(Completion(replay.text, replay.finish_reason, replay.usage, replay.tool_calls)):
                    said.add(delta)
                    yield delta
                turn.progress.usage = replay.usage
                yield Ending(replay.finish_reason, replay.usage, replay.stop)
                return
            async with aclosing(self._asked_in_turn(turn, stream=stream)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        turn.progress.upstream_answered()
                        said.add(event)
                    yield event
            turn.progress.usage = usage = said.usage or _estimated(turn.progress.prompt, said)
            await self._remember(turn, said, usage)
            yield Ending(said.finish_reason, usage, said.stop)

    async def _asked_in_turn(self, turn: _Turn, *, stream: bool) -> AsyncGenerator[Opening | Delta, None]:
        """The answer of the first provider that has one. Once it has said a word, no other is asked."""
        call = turn.call
        failure: GatewayError | None = None
        left = len(turn.targets)
        for candidate in candidates(turn.targets, call, turn.decided.messages):
            if isinstance(candidate, PassedOver):
                left -= not candidate.for_now
                failure = self._passed_over(turn, candidate.target, candidate.error, failure)
                continue
            left -= 1
            turn.progress.asked(candidate)
            abilities = candidate.target.spec.abilities
            yield turn.opening(candidate.prompt, options_taken="options" in abilities)
            limiter = _limiter(call, candidate)
            begun = False
            try:
                async with aclosing(
                    in_parts(_asked(turn, candidate, stream=stream, alone=not left), limiter)
                ) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
            except GatewayError as error:
                if begun or not error.try_elsewhere:
                    raise
                failure = self._passed_over(turn, candidate.target, error, failure)
            else:
                return
        if failure is not None:
            raise failure

    def _passed_over(
        self, turn: _Turn, target: Target, error: GatewayError, before: GatewayError | None
    ) -> GatewayError:
        """Note that a target didn't answer; returns what to tell the client if none does."""
        turn.progress.passed_over.append((target.provider.name, error.code or "unfit"))
        # That a larger model would have answered but is in trouble tells more than that the request is too large.
        return before if isinstance(before, UpstreamError) and not isinstance(error, UpstreamError) else error

    @asynccontextmanager
    async def _turn(self, call: ChatCall, caller: Caller) -> AsyncGenerator[_Turn, None]:
        """Everything before an upstream is asked, and what has to be done however it ends."""
        targets = self._registry.resolve(call.model, call.provider)
        progress = _Progress(caller.id, _label(targets[0].spec), targets[0].provider.name, time.perf_counter())
        progress.session = SessionKey(caller.id, call.session.id).digest if call.session else None
        outcome: Outcome = "abandoned"
        error_code: str | None = None
        try:
            async with AsyncExitStack() as stack:
                held = await self._hold(stack, call, caller)
                progress.decided = decided = self._plan(call, held)
                # As long as the most patient of them may take: the others stand in within that time.
                deadline = asyncio.get_running_loop().time() + max(target.provider.timeout for target in targets)
                yield _Turn(call, caller, targets, held, decided, _session_began(decided, held), deadline, progress)
            outcome = "completed"
        except Exception as error:
            outcome = "failed"
            error_code = error.code if isinstance(error, GatewayError) else "internal_error"
            raise
        finally:
            self._on_call(progress.record(outcome, error_code))
            if self._on_texts is not None and progress.candidate is not None:
                self._on_texts(progress.candidate.text, progress.said.text)

    async def _hold(self, stack: AsyncExitStack, call: ChatCall, caller: Caller) -> HeldSession | None:
        """The call's session, or None if it has none, or can do without while the store is down."""
        if call.session is None:
            return None
        try:
            with self._trace("session.take"):
                return await stack.enter_async_context(self._sessions.hold(SessionKey(caller.id, call.session.id)))
        except SessionStoreUnavailable:
            if is_full_history(call.messages):
                return None
            raise

    def _plan(self, call: ChatCall, held: HeldSession | None) -> Plan:
        if held is None:
            return Plan("stateless", call.messages)
        return plan(call, held.record, now=time.time(), replay_seconds=self._policy.replay_seconds)

    async def _remember(self, turn: _Turn, said: Said, usage: Usage) -> None:
        if turn.held is None or turn.progress.prompt is None:
            return
        prompt = turn.progress.prompt
        session = remember(
            turn.call,
            turn.decided,
            Message("assistant", said.text, tool_calls=said.tool_calls),
            last_turn=LastTurn(
                fingerprint=fingerprint(turn.call.model, turn.call.messages),
                idempotency_key=turn.call.idempotency_key,
                text=said.text,
                tool_calls=said.tool_calls,
                finish_reason=said.finish_reason,
                usage=usage,
                prompt_size=prompt.size,
                dropped=prompt.dropped,
                shortened=prompt.shortened,
                at=time.time(),
                stop=said.stop,
            ),
            created_at=turn.session_began,
            max_characters=self._policy.max_characters,
        )
        try:
            with self._trace("session.save"):
                await turn.held.save(SessionRecord(session, turn.decided.client_keeps_history))
        except SessionStoreUnavailable:
            # Whoever sends the whole conversation loses nothing; whoever relies on the memory must know.
            if not is_full_history(turn.call.messages):
                raise


def _asked(turn: _Turn, candidate: Candidate, *, stream: bool, alone: bool) -> AsyncGenerator[Delta, None]:
    """The answer of one provider, not yet begun.

    One that stands alone may use up the time, also for further tries; else it leaves half of it to those behind it.
    """
    provider = candidate.target.provider
    now = asyncio.get_running_loop().time()
    left = turn.deadline - now
    deadline = now + min(provider.timeout, left if alone else left / 2)
    request_of = partial(turn.request, deadline=deadline, retries=alone)
    if candidate.emulator is not None:
        return in_one_piece(ask_for_form(candidate, candidate.emulator, request_of))
    if stream:
        return provider.stream_completion(request_of(candidate))
    return in_one_piece(provider.create_completion(request_of(candidate)))


def _limiter(call: ChatCall, candidate: Candidate) -> OutputLimiter | None:
    """Ends the answer of a model that doesn't end it by itself, or that was not told where."""
    if "messages" not in candidate.target.spec.abilities:
        return OutputLimiter(call.stop, call.max_tokens)
    return OutputLimiter(call.stop) if candidate.emulator and call.stop else None


def _label(spec: ModelSpec) -> str:
    """The model's name in records, which must be one of a bounded number."""
    return spec.id if spec.listed else "unlisted"


def _replayed_prompt(replay: LastTurn, target: Target) -> Prompt:
    """What is still known about the prompt of a turn that was answered before."""
    return Prompt("", replay.prompt_size, target.spec.prompt_limit, replay.dropped, replay.shortened)


def _estimated(prompt: Prompt | None, said: Said) -> Usage:
    if prompt is None:
        return Usage(0, said.tokens())
    return Usage(estimate(prompt.text) if prompt.text else prompt.size, said.tokens())


def _session_began(decided: Plan, held: HeldSession | None) -> float:
    session = held.record.session if held else None
    if session is not None and decided.action in ("continued", "replaced"):
        return session.created_at
    return time.time()
