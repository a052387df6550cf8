"""One call from beginning to end: model, session, provider, memory, record."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from app.chat.answer_cache import AnswerCache, Hit
from app.chat.attempts import Attempt, attempts, is_native
from app.chat.call_log import CallLog
from app.chat.deltas import as_deltas, gather, limit_completion, limit_deltas, stream_whole, usage_with
from app.chat.emulated import ask_emulated
from app.chat.events import Answer, Ending, Event, Opening
from app.chat.fitting import USUAL_ROOM, RoomPolicy
from app.chat.notices import notice_below, without_notices
from app.chat.passage import pass_limits
from app.chat.session import CallSession, SessionPolicy
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, FinishReason, Message
from app.domain.conversation import LastTurn
from app.domain.emulation.schema import SchemaCompiler
from app.domain.errors import EmptyReply, GatewayError
from app.domain.prompt import Prompt
from app.domain.texts import TextTaker
from app.domain.usage import NOWHERE, CallRecord, Origin, refused
from app.limits.limiter import Limiter
from app.providers.registry import ProviderRegistry, Target
from app.sessions.base import SessionStore


class ChatService:
    """Answers calls, whatever dialect they came in.

    Args:
        registry: Finds the providers of a model.
        sessions: Remembers conversations.
        policy: How sessions are treated.
        on_call: Take the record of every call when it is over. They must return at once: they may run while a task is
            being cancelled.
        on_refusal: Take the record of every call whose model nobody serves, likewise.
        on_texts: Take, at the same time, what was said in the calls of those whose texts they want.
        room: What is done where a model's limit leaves too little room.
        compiler: Compiles the schemas of tools and answers, and remembers them; None for one of its own.
        limiter: Lets calls in as far as their limits allow; None if nothing is limited.
        cache: Answers that are given again to the same request; None if there are none.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        sessions: SessionStore,
        policy: SessionPolicy,
        on_call: Sequence[Callable[[CallRecord], None]] = (),
        on_refusal: Sequence[Callable[[CallRecord], None]] = (),
        on_texts: Sequence[TextTaker] = (),
        room: RoomPolicy = USUAL_ROOM,
        compiler: SchemaCompiler | None = None,
        limiter: Limiter | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._policy = policy
        self._on_call = on_call
        self._on_refusal = on_refusal
        self._on_texts = on_texts
        self._room = room
        self._compiler = SchemaCompiler() if compiler is None else compiler
        self._limiter = limiter
        self._cache = cache

    async def complete(self, call: ChatCall, caller: Caller, origin: Origin = NOWHERE) -> Answer:
        """Answer a call as a whole.

        Raises:
            GatewayError: No answer can be had.
        """
        targets = self._resolved(call, caller, origin)
        call = without_notices(call)
        with CallLog(call, caller, targets[0], self._on_call, self._on_texts, origin) as log:
            hit = await self._admit(call, caller, targets, log)
            async with CallSession(self._sessions, self._policy, call, caller, log.note_wait) as session:
                log.action = session.action
                if (known := hit or session.replay) is not None:
                    return _known(call, session, targets[0], known, log)
                for attempt in self._attempts(call, caller, targets, session, log):
                    try:
                        await pass_limits(self._limiter, call, caller, attempt.target, attempt.request, log)
                        completion = await _asked(attempt, log)
                    except GatewayError as error:
                        log.failed(error)
                        if isinstance(error, EmptyReply) and _may_say_nothing(call, session.messages):
                            completion = Completion("")
                        elif not error.try_elsewhere:
                            raise
                        else:
                            log.pass_over(attempt.target, error)
                            continue
                    log.answered()
                    if attempt.limiter is not None:
                        completion = limit_completion(completion, attempt.limiter)
                    opening = _opening(call, session, attempt.target, attempt.request.prompt, log, attempt.ignored)
                    ending = _ending(completion, opening.prompt)
                    await _remember(opening, ending, session, log)
                    if self._room.tells:
                        ending = replace(ending, notice=notice_below(completion, opening, call, session.messages))
                    return Answer(opening, ending)
                raise log.refusal()

    async def stream(self, call: ChatCall, caller: Caller, origin: Origin = NOWHERE) -> AsyncGenerator[Event, None]:
        """Answer a call in parts: an `Opening` (or several), the `Delta`s, one `Ending`.

        Raises:
            GatewayError: No answer can be had, or it broke off.
        """
        targets = self._resolved(call, caller, origin)
        call = without_notices(call)
        with CallLog(call, caller, targets[0], self._on_call, self._on_texts, origin) as log:
            hit = await self._admit(call, caller, targets, log)
            async with CallSession(self._sessions, self._policy, call, caller, log.note_wait) as session:
                log.action = session.action
                if (known := hit or session.replay) is not None:
                    answer = _known(call, session, targets[0], known, log)
                    yield answer.opening
                    for delta in as_deltas(answer.ending.completion) if hit is None else hit.deltas:
                        yield delta
                    yield answer.ending
                    return
                said = log.deltas
                for attempt in self._attempts(call, caller, targets, session, log):
                    opening = _opening(call, session, attempt.target, attempt.request.prompt, log, attempt.ignored)
                    yield opening
                    try:
                        await pass_limits(self._limiter, call, caller, attempt.target, attempt.request, log)
                        async with aclosing(_deltas(attempt, log)) as deltas:
                            async for delta in deltas:
                                if not said:
                                    log.answered()
                                said.append(delta)
                                yield delta
                    except GatewayError as error:
                        log.failed(error)
                        if isinstance(error, EmptyReply) and _may_say_nothing(call, session.messages):
                            log.answered()
                        elif said or not error.try_elsewhere:
                            raise  # after the first word the next provider would begin anew
                        else:
                            log.pass_over(attempt.target, error)
                            continue
                    ending = _ending(gather(said), opening.prompt)
                    await _remember(opening, ending, session, log)
                    if self._room.tells:
                        yield Delta(notice_below(ending.completion, opening, call, session.messages))
                    yield ending
                    return
                raise log.refusal()

    def _resolved(self, call: ChatCall, caller: Caller, origin: Origin) -> tuple[Target, ...]:
        """Who can answer a call."""
        try:
            return self._registry.resolve(call.model, call.provider, caller)
        except GatewayError as error:
            record = refused(caller, origin, error.code or error.type, error.status, model=call.model)
            for take in self._on_refusal:
                take(record)
            raise

    async def _admit(self, call: ChatCall, caller: Caller, targets: Sequence[Target], log: CallLog) -> Hit | None:
        """Wait a short while for the caller's limits to let the call in. If the cache has its answer, it needs no such
        permission: the answer is returned."""
        if self._cache is not None:
            log.slot = slot = await self._cache.look_up(call, caller, targets)
            if slot is not None and slot.hit is not None:
                return slot.hit
        if self._limiter is not None and self._limiter.limits_calls:
            target = targets[0]
            log.admission = await self._limiter.admit(call, caller, target.provider.name, target.spec.id, log.note_wait)
        return None

    def _attempts(
        self, call: ChatCall, caller: Caller, targets: Sequence[Target], session: CallSession, log: CallLog
    ) -> Iterator[Attempt]:
        return attempts(call, caller.id, targets, session, log, self._room, self._compiler)


def _asked(attempt: Attempt, log: CallLog) -> Awaitable[Completion]:
    """The provider's answer as a whole."""
    if attempt.emulator is not None:
        return ask_emulated(attempt, attempt.emulator, log.note_replies)
    return attempt.target.provider.create_completion(attempt.request)


def _deltas(attempt: Attempt, log: CallLog) -> AsyncGenerator[Delta, None]:
    """The provider's answer in parts, cut where the client wants it to end."""
    if attempt.emulator is not None:
        return stream_whole(_asked(attempt, log), attempt.limiter)
    deltas = attempt.target.provider.stream_completion(attempt.request)
    return deltas if attempt.limiter is None else limit_deltas(deltas, attempt.limiter)


def _may_say_nothing(call: ChatCall, messages: Sequence[Message]) -> bool:
    """Whether an empty answer is an end, and no fault: nothing was asked since a tool's result or the last answer, or
    the client has named texts that end an answer. What must have a form is never empty."""
    if call.output_format.kind != "text" or (call.tools is not None and call.tools.choice == "required"):
        return False
    if call.stop:
        return True
    since: list[str] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        since.append(message.role)
    return "tool" in since or "user" not in since


def _opening(
    call: ChatCall,
    session: CallSession,
    target: Target,
    prompt: Prompt,
    log: CallLog,
    ignored: tuple[str, ...] = (),
) -> Opening:
    return Opening(
        model=call.model,
        provider=target.provider.name,
        session_id=call.session.id if call.session else None,
        action=session.action,
        prompt=prompt,
        options_taken=session.replay is None and "options" in target.spec.abilities,
        fallback=tuple([f"{provider}={reason}" for provider, reason in log.passed_over]) if log.passed_over else (),
        ignored=ignored,
        admission=log.admission,
        cache_age=None if log.slot is None else -1,
        native=call.native is not None and session.replay is None and is_native(call, target),
    )


def _ending(completion: Completion, prompt: Prompt) -> Ending:
    """The end of an answer: its usage estimated where nobody counted, its finish reason true to its calls."""
    usage = usage_with(completion, prompt.tokens)
    if completion.finish_reason in ("stop", "tool_calls"):
        reason: FinishReason = "tool_calls" if completion.tool_calls else "stop"
        if reason != completion.finish_reason:
            completion = replace(completion, finish_reason=reason)
    return Ending(completion, usage)


async def _remember(opening: Opening, ending: Ending, session: CallSession, log: CallLog) -> None:
    """Note the end of an answer, and keep it where it will be looked for."""
    log.used = ending.usage
    await session.remember(ending, opening.prompt)
    log.ending = ending
    if log.slot is not None:
        await log.slot.keep(log.target, opening, ending, log.deltas)


def _known(call: ChatCall, session: CallSession, target: Target, known: Hit | LastTurn, log: CallLog) -> Answer:
    """The answer that the same request got before, from the cache or from its session."""
    if isinstance(known, LastTurn):
        return _replayed(call, session, target, known, log)
    log.action, log.target, log.prompt, log.ending = "replayed", known.target, known.prompt, known.answer.ending
    return known.answer


def _replayed(call: ChatCall, session: CallSession, target: Target, last: LastTurn, log: CallLog) -> Answer:
    """The answer that was given before, with what is still known of its prompt."""
    prompt = Prompt(
        size=last.prompt_size,
        limit=target.spec.prompt_limit,
        tokens=last.usage.prompt_tokens,
        dropped=last.dropped,
        shortened=last.shortened,
    )
    completion = Completion(
        last.text, last.finish_reason, last.usage, last.tool_calls, stop=last.stop, refusal=last.refusal
    )
    ending = Ending(completion, last.usage)
    log.target, log.prompt, log.ending = target, prompt, ending
    return Answer(_opening(call, session, target, prompt, log), ending)
