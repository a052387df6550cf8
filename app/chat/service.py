"""One call from beginning to end: model, session, prompt, provider, memory, record."""

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, FinishReason, Message, Usage
from app.domain.conversation import (
    Action,
    LastTurn,
    Plan,
    SessionKey,
    SessionRecord,
    fingerprint,
    is_full_history,
    plan,
    remember,
)
from app.domain.errors import GatewayError, SessionStoreUnavailable
from app.domain.output import OutputLimiter
from app.domain.prompt import Prompt, compose
from app.domain.tokens import estimate
from app.domain.tracing import Trace, no_trace
from app.domain.usage import CallRecord, Outcome
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec
from app.providers.registry import ProviderRegistry
from app.sessions.base import HeldSession, SessionStore


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known before the upstream has said a word; it becomes response headers."""

    model: str
    provider: str
    session_id: str | None
    action: Action
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended. When it is told, the turn has been remembered."""

    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    opening: Opening
    text: str
    ending: Ending


Event = Opening | Delta | Ending


@dataclass(frozen=True, slots=True)
class SessionPolicy:
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
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    """A call that is ready to be answered."""

    call: ChatCall
    caller: Caller
    provider: BaseProvider
    spec: ModelSpec
    held: HeldSession | None
    decided: Plan
    prompt: Prompt
    session_began: float
    progress: _Progress

    @property
    def opening(self) -> Opening:
        session_id = self.call.session.id if self.call.session else None
        return Opening(self.spec.id, self.provider.name, session_id, self.decided.action, self.prompt)

    @property
    def request(self) -> CompletionRequest:
        return CompletionRequest(
            model=self.spec,
            prompt=self.prompt,
            messages=self.decided.messages,
            caller_id=self.caller.id,
            conversation_id=self._conversation_id(),
            options=self.call.options,
        )

    def _conversation_id(self) -> str | None:
        if self.call.session is None:
            return None
        parts = f"{self.caller.id}\n{self.call.session.id}\n{self.session_began}"
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


class ChatService:
    """Answers calls, whatever dialect they came in.

    Args:
        registry: Finds the provider of a model.
        sessions: Remembers conversations.
        policy: How sessions are treated.
        on_call: Told of every call when it is over. Must return at once: it may run while a task is being cancelled.
        trace: Marks the work of the session store.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        sessions: SessionStore,
        policy: SessionPolicy,
        on_call: Callable[[CallRecord], None] = lambda _: None,
        trace: Trace = no_trace,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._policy = policy
        self._on_call = on_call
        self._trace = trace

    async def complete(self, call: ChatCall, caller: Caller) -> Answer:
        """The whole answer.

        Raises:
            GatewayError: Whatever kept it from coming.
        """
        async with self._turn(call, caller) as turn:
            replay = turn.decided.replay
            if replay is not None:
                return Answer(turn.opening, replay.text, self._replayed(turn, replay))
            completion = await turn.provider.create_completion(turn.request)
            turn.progress.upstream_answered()
            limiter = OutputLimiter(call.stop, call.max_tokens)
            text = limiter.feed(completion.text) + limiter.finish()
            limited = Completion(text, completion.finish_reason, completion.usage)
            ending = self._ending(turn, limited, limiter.finish_reason)
            await self._remember(turn, text, ending)
            return Answer(turn.opening, text, ending)

    async def stream(self, call: ChatCall, caller: Caller) -> AsyncGenerator[Event, None]:
        """The answer in parts: one `Opening`, the `Delta`s, one `Ending`.

        Raises:
            GatewayError: Whatever kept it from coming, or from going on.
        """
        async with self._turn(call, caller) as turn:
            yield turn.opening
            replay = turn.decided.replay
            if replay is not None:
                yield Delta(replay.text, whole=True)
                yield self._replayed(turn, replay)
                return
            limiter = OutputLimiter(call.stop, call.max_tokens)
            shown: list[str] = []
            last = Delta("")
            async with aclosing(turn.provider.stream_completion(turn.request)) as deltas:
                async for delta in deltas:
                    turn.progress.upstream_answered()
                    last = delta
                    text = limiter.feed(delta.text)
                    if text:
                        shown.append(text)
                        yield Delta(text, whole=delta.whole)
                    if limiter.finish_reason is not None:
                        break
            text = limiter.finish()
            if text:
                shown.append(text)
                yield Delta(text, whole=last.whole)
            completion = Completion("".join(shown), last.finish_reason or "stop", last.usage)
            ending = self._ending(turn, completion, limiter.finish_reason)
            await self._remember(turn, completion.text, ending)
            yield ending

    @asynccontextmanager
    async def _turn(self, call: ChatCall, caller: Caller) -> AsyncGenerator[_Turn, None]:
        """Everything before the upstream is asked, and what has to be done however it ends."""
        provider, spec = self._registry.resolve(call.model)
        progress = _Progress(caller.id, spec.id, provider.name, time.perf_counter())
        outcome: Outcome = "abandoned"
        error_code: str | None = None
        try:
            async with AsyncExitStack() as stack:
                held = await self._hold(stack, call, caller)
                progress.decided = decided = self._plan(call, held)
                progress.prompt = prompt = _prompt(decided, spec)
                began = _session_began(decided, held)
                yield _Turn(call, caller, provider, spec, held, decided, prompt, began, progress)
            outcome = "completed"
        except Exception as error:
            outcome = "failed"
            error_code = error.code if isinstance(error, GatewayError) else "internal_error"
            raise
        finally:
            self._on_call(progress.record(outcome, error_code))

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

    def _ending(self, turn: _Turn, completion: Completion, limited: FinishReason | None) -> Ending:
        usage = completion.usage or Usage(estimate(turn.prompt.text), estimate(completion.text))
        turn.progress.usage = usage
        return Ending(limited or completion.finish_reason, usage)

    def _replayed(self, turn: _Turn, replay: LastTurn) -> Ending:
        turn.progress.usage = replay.usage
        return Ending(replay.finish_reason, replay.usage)

    async def _remember(self, turn: _Turn, text: str, ending: Ending) -> None:
        if turn.held is None:
            return
        session = remember(
            turn.call,
            turn.decided,
            Message("assistant", text),
            last_turn=LastTurn(
                fingerprint=fingerprint(turn.call.model, turn.call.messages),
                idempotency_key=turn.call.idempotency_key,
                text=text,
                finish_reason=ending.finish_reason,
                usage=ending.usage,
                prompt_size=turn.prompt.size,
                dropped=turn.prompt.dropped,
                shortened=turn.prompt.shortened,
                at=time.time(),
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


def _prompt(decided: Plan, spec: ModelSpec) -> Prompt:
    """The prompt to send; of a replayed turn what is still known about the one that was sent."""
    replay = decided.replay
    if replay is None:
        return compose(decided.messages, spec.prompt_limit)
    return Prompt("", replay.prompt_size, spec.prompt_limit, replay.dropped, replay.shortened)


def _session_began(decided: Plan, held: HeldSession | None) -> float:
    session = held.record.session if held else None
    if session is not None and decided.action in ("continued", "replaced"):
        return session.created_at
    return time.time()
