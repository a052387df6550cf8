"""One call from beginning to end: model, session, prompt, provider, memory, record."""

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, FinishReason, Message, Usage
from app.domain.conversation import Action, Plan, SessionKey, SessionRecord, is_full_history, plan, remember
from app.domain.errors import GatewayError, SessionStoreUnavailable
from app.domain.output import OutputLimiter
from app.domain.prompt import Prompt, compose
from app.domain.tokens import estimate
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
class _Turn:
    """A call on its way: what was decided, and what has come of it so far."""

    call: ChatCall
    caller: Caller
    provider: BaseProvider
    spec: ModelSpec
    key: SessionKey | None
    held: HeldSession | None
    decided: Plan
    prompt: Prompt
    started: float
    session_began: float
    upstream_seconds: float | None = None
    usage: Usage | None = None

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

    def upstream_answered(self) -> None:
        if self.upstream_seconds is None:
            self.upstream_seconds = time.perf_counter() - self.started

    def _conversation_id(self) -> str | None:
        if self.key is None:
            return None
        parts = f"{self.key.caller_id}\n{self.key.session_id}\n{self.session_began}"
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


class ChatService:
    """Answers calls, whatever dialect they came in.

    Args:
        registry: Finds the provider of a model.
        sessions: Remembers conversations.
        policy: How sessions are treated.
        on_call: Told of every call when it is over. Must return at once: it may run while a task is being cancelled.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        sessions: SessionStore,
        policy: SessionPolicy,
        on_call: Callable[[CallRecord], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._policy = policy
        self._on_call = on_call

    async def complete(self, call: ChatCall, caller: Caller) -> Answer:
        """The whole answer.

        Raises:
            GatewayError: Whatever kept it from coming.
        """
        async with self._turn(call, caller) as turn:
            replay = turn.decided.replay
            if replay is not None:
                completion = Completion(replay.text, replay.finish_reason)
                return Answer(turn.opening, replay.text, self._ending(turn, completion, replay.finish_reason))
            completion = await turn.provider.create_completion(turn.request)
            turn.upstream_answered()
            limiter = OutputLimiter(call.stop, call.max_tokens)
            text = limiter.feed(completion.text) + limiter.finish()
            limited = Completion(text, completion.finish_reason, completion.usage)
            ending = self._ending(turn, limited, limiter.finish_reason)
            await self._remember(turn, text, ending.finish_reason)
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
                yield self._ending(turn, Completion(replay.text, replay.finish_reason), replay.finish_reason)
                return
            limiter = OutputLimiter(call.stop, call.max_tokens)
            shown: list[str] = []
            last = Delta("")
            async with aclosing(turn.provider.stream_completion(turn.request)) as deltas:
                async for delta in deltas:
                    turn.upstream_answered()
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
            await self._remember(turn, completion.text, ending.finish_reason)
            yield ending

    @asynccontextmanager
    async def _turn(self, call: ChatCall, caller: Caller) -> AsyncGenerator[_Turn, None]:
        """Everything before the upstream is asked, and what has to be done however it ends."""
        started = time.perf_counter()
        provider, spec = self._registry.resolve(call.model)
        key = SessionKey(caller.id, call.session.id) if call.session else None
        async with AsyncExitStack() as stack:
            held = await self._hold(stack, call, key)
            record = held.record if held else SessionRecord()
            decided = self._plan(call, held)
            prompt = compose(decided.messages, spec.prompt_limit)
            began = _session_began(decided, record)
            turn = _Turn(call, caller, provider, spec, key, held, decided, prompt, started, began)
            outcome: Outcome = "abandoned"
            error_code: str | None = None
            try:
                yield turn
                outcome = "completed"
            except Exception as error:
                outcome = "failed"
                error_code = error.code if isinstance(error, GatewayError) else "internal_error"
                raise
            finally:
                self._on_call(_record(turn, outcome, error_code))

    async def _hold(self, stack: AsyncExitStack, call: ChatCall, key: SessionKey | None) -> HeldSession | None:
        """The call's session, or None if it has none, or can do without while the store is down."""
        if key is None:
            return None
        try:
            return await stack.enter_async_context(self._sessions.hold(key))
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
        turn.usage = usage
        return Ending(limited or completion.finish_reason, usage)

    async def _remember(self, turn: _Turn, text: str, finish_reason: FinishReason) -> None:
        if turn.held is None:
            return
        session = remember(
            turn.call,
            turn.decided,
            Message("assistant", text),
            finish_reason=finish_reason,
            created_at=turn.session_began,
            now=time.time(),
            max_characters=self._policy.max_characters,
        )
        try:
            await turn.held.save(SessionRecord(session, turn.decided.client_keeps_history))
        except SessionStoreUnavailable:
            # Whoever sends the whole conversation loses nothing; whoever relies on the memory must know.
            if not is_full_history(turn.call.messages):
                raise


def _session_began(decided: Plan, record: SessionRecord) -> float:
    if record.session is not None and decided.action in ("continued", "replaced"):
        return record.session.created_at
    return time.time()


def _record(turn: _Turn, outcome: Outcome, error_code: str | None) -> CallRecord:
    return CallRecord(
        caller_id=turn.caller.id,
        model=turn.spec.id,
        provider=turn.provider.name,
        outcome=outcome,
        error_code=error_code,
        action=turn.decided.action,
        prompt_size=turn.prompt.size,
        dropped=turn.prompt.dropped,
        usage=turn.usage,
        seconds=time.perf_counter() - turn.started,
        upstream_seconds=turn.upstream_seconds,
    )
