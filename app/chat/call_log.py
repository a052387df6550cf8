"""What becomes of one call, noted while it is answered."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from app.chat.answer_cache import CacheSlot
from app.chat.deltas import estimated_usage, gather
from app.chat.events import Ending
from app.chat.fitting import tools_among
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Delta, Usage
from app.domain.conversation import Action, SessionKey
from app.domain.errors import (
    ClientClosedRequest,
    ContextTooLong,
    GatewayError,
    GatewayOverloaded,
    InternalError,
    LimitReached,
    LimitsUnavailable,
    UpstreamError,
)
from app.domain.prompt import MessagePrompt, Prompt, TextPrompt
from app.domain.relay import RelayCall
from app.domain.texts import CallTexts, TextTaker
from app.domain.usage import NOWHERE, CallRecord, Origin, Outcome
from app.domain.waits import WaitStep
from app.limits.limiter import Admission
from app.providers.registry import Target


class CallLog:
    """Takes notes of a call within a `with` block, and hands them in as a `CallRecord` however the block ends.

    Args:
        call: The call.
        caller: Whose it is.
        target: The target that is asked first.
        on_call: Take the record. They must return at once: they may run while a task is being cancelled.
        on_texts: Take the texts, if it is the call of somebody whose texts they want.
        origin: How the call came in.

    Attributes:
        target: Who is asked.
        slot: The place of its answer in the cache; None if it has none.
        prompt: What is asked; None before anybody is.
        ending: The end of the answer; None if there is none.
        action: What the call means for its session; None until that is known.
        admission: By the limits of its caller; None if there are none.
        admitted_models: The models that it was let in for, and that were asked.
        fallback: By the limits of its caller for another model, while that one is asked; None if there are none.
        passage: By the limits of the upstream that is asked; None if there are none.
        passed_over: The providers that didn't answer, each with the code of its reason.
        left_out: What of the request's tools and form the model wasn't told.
        deltas: What a streamed answer has said so far.
        used: The tokens of the replies that the latest attempt has got whole, whatever becomes of them.
    """

    __slots__ = (
        "_began",
        "_call",
        "_caller",
        "_earlier_fallbacks",
        "_on_call",
        "_on_texts",
        "_origin",
        "_refusal",
        "_reported",
        "_upstream_seconds",
        "_waits",
        "_was_sent",
        "action",
        "admission",
        "admitted_models",
        "deltas",
        "ending",
        "fallback",
        "left_out",
        "passage",
        "passed_over",
        "prompt",
        "slot",
        "target",
        "used",
    )

    def __init__(
        self,
        call: ChatCall | RelayCall,
        caller: Caller,
        target: Target,
        on_call: Sequence[Callable[[CallRecord], None]],
        on_texts: Sequence[TextTaker] = (),
        origin: Origin = NOWHERE,
    ) -> None:
        self._began = time.perf_counter()
        self._call = call
        self._caller = caller
        self._origin = origin
        self._on_call = on_call
        self._on_texts = on_texts
        self.target = target
        self.slot: CacheSlot | None = None
        self.prompt: Prompt | None = None
        self.ending: Ending | None = None
        self._upstream_seconds: float | None = None
        self._refusal: GatewayError | None = None
        self._waits: dict[WaitStep, float] | None = None
        self._was_sent = False
        self.action: Action | None = None
        self.admission: Admission | None = None
        self.admitted_models: tuple[str, ...] = (target.spec.id,)
        self.fallback: Admission | None = None
        self._earlier_fallbacks: tuple[Admission, ...] = ()
        self.passage: Admission | None = None
        self.passed_over: list[tuple[str, str]] = []
        self.left_out: tuple[str, ...] = ()
        self.deltas: list[Delta] = []
        self.used: Usage | None = None
        self._reported: Usage | None = None

    def attempt(self, target: Target, prompt: Prompt, left_out: tuple[str, ...]) -> None:
        """Note an attempt that is about to be made. What others before it have used is nobody's charge."""
        self.target, self.prompt, self.left_out = target, prompt, left_out
        self.used = self._reported = None

    def turn_to(self, target: Target) -> None:
        """Note that a request is about to be passed on, to one target after another."""
        self.target, self.used = target, None

    def passed_on(self, call: RelayCall) -> None:
        """Note that the answer to a request that was passed on has come to its end."""
        self.used = _used_by(call, self.used)
        if self.used is not None:
            self.ending = Ending(Completion(""), self.used)

    @property
    def has_answered(self) -> bool:
        """Whether an upstream has answered, or begun to."""
        return self._upstream_seconds is not None

    def note_replies(self, usage: Usage) -> None:
        """Note the tokens of all replies that the running attempt has got whole."""
        self.used = usage

    def note_report(self, usage: Usage) -> None:
        """Note what the upstream has told of an answer before it broke off."""
        self._reported = usage

    def note_wait(self, step: WaitStep, seconds: float) -> None:
        """Note that the call had to wait, at whichever attempt."""
        if self._waits is None:
            self._waits = {}
        self._waits[step] = self._waits.get(step, 0.0) + seconds

    def failed(self, error: GatewayError) -> None:
        """Note that an attempt has failed."""
        self._was_sent = self._was_sent or error.was_sent

    def answered(self) -> None:
        """Note that the upstream has answered, or begun to."""
        self._upstream_seconds = time.perf_counter() - self._began

    def pass_over(self, target: Target, error: GatewayError) -> None:
        """Note that a target doesn't answer."""
        if isinstance(error, ContextTooLong):
            error.tell_limit(target.spec.prompt_limit.in_words)
        self.passed_over.append((target.provider.name, error.code or "unfit"))
        self._leave(target, error)
        if _tells_more(error, self._refusal):
            # Without its traceback, which leads back to this object: they would keep each other alive.
            self._refusal = error.with_traceback(None)

    def _leave(self, target: Target, error: GatewayError) -> None:
        """Settle what was taken to ask a target that doesn't answer."""
        fallback, passage, self.fallback, self.passage = self.fallback, self.passage, None, None
        if passage is not None:
            # Its caller doesn't pay for replies that were of no use, but the upstream gave them.
            passage.settle(self.used, counts=error.was_sent, provider=target.provider.name, model=target.spec.id)
        if fallback is None:
            return
        if error.was_sent:
            # Until the call ends, as with the first model: a limit counts a call once, whoever is asked after this one.
            self._earlier_fallbacks += (fallback,)
            self.admitted_models += (fallback.model,)
        else:
            fallback.settle(None, counts=False)

    def refusal(self) -> GatewayError:
        """What the client is told when no target has answered; to be raised, once."""
        refusal, self._refusal = self._refusal, None
        return refusal or InternalError("There was no provider to ask.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        record = self._record(error)
        try:
            for take in self._on_call:
                take(record)
        finally:
            for admission in (self.admission, *self._earlier_fallbacks, self.fallback, self.passage):
                if admission is not None:
                    admission.settle(
                        record.charged,
                        counts=record.counts,
                        was_answered=self.has_answered,
                        provider=record.provider,
                        model=record.served_model,
                    )
        for taker in self._on_texts:
            if self._caller.id in taker.callers:
                taker.take_texts(self._texts(record))

    def _texts(self, record: CallRecord) -> CallTexts:
        call = None if isinstance(self._call, RelayCall) else self._call
        return CallTexts(
            record,
            () if call is None else call.messages,
            self.prompt if isinstance(self.prompt, TextPrompt | MessagePrompt) else None,
            gather(self.deltas) if self.ending is None else self.ending.completion,
            call,
        )

    def _record(self, error: BaseException | None) -> CallRecord:
        outcome, error_code, status = _outcome(error)
        usage = self.ending.usage if self.ending else None
        reason, server = (error.reason, error.server) if isinstance(error, GatewayError) else ("", "")
        spec, session, prompt = self.target.spec, self._call.session, self.prompt
        began = 0.0 if self.admission is None else self.admission.at
        if not began and (self.passage or self.fallback or self._earlier_fallbacks):
            began = self._began_at_fallbacks()
        # By position: with names it would take five times as long, 1 µs of every call.
        return CallRecord(
            self._caller.id,
            # One of a bounded number of names: it labels metrics.
            spec.id if spec.listed else "unlisted",
            self.target.provider.name,
            outcome,
            error_code,
            self.action,
            prompt.size if prompt else None,
            prompt.dropped if prompt else None,
            usage,
            time.perf_counter() - self._began,
            self._upstream_seconds,
            SessionKey(self._caller.id, session.id).digest if session else None,
            tuple(self.passed_over),
            reason,
            server,
            tools_among(self.left_out) if self.left_out else 0,
            self._origin,
            self._caller.project,
            self._call.model or "",
            spec.id,
            status,
            None if self.action == "replayed" else usage or self._used_so_far(error),
            self._counts(error),
            began,
            prompt.limit if prompt else None,
            prompt.shortened if prompt else 0,
            self._waits,
        )

    def _began_at_fallbacks(self) -> float:
        """When the call counts by the first quotas that it was let in for on its way; 0 if there are none."""
        for admission in (*self._earlier_fallbacks, self.fallback, self.passage):
            if admission is not None and admission.at:
                return admission.at
        return 0.0

    def _used_so_far(self, error: BaseException | None) -> Usage | None:
        """The tokens of an answer that broke off: those that the upstream has told, else of what came; None if nothing
        did."""
        if isinstance(self._call, RelayCall):
            return _used_by(self._call, self.used) if self.has_answered else self.used
        if self.used is not None:
            return self.used
        if self.prompt is None:
            return None
        reported = self._reported
        if not self.deltas:
            # Nobody pays for an upstream that fails before its first word, whatever it counts.
            return None if isinstance(error, Exception) else reported
        said = estimated_usage(gather(self.deltas), self.prompt.tokens)
        if reported is None:
            return said
        # What the upstream told may be older than what it said last.
        written = max(reported.completion_tokens, said.completion_tokens)
        if written == reported.completion_tokens:
            return reported
        return replace(reported, completion_tokens=written, estimated=True)

    def _counts(self, error: BaseException | None) -> bool:
        """See `CallRecord`."""
        if self.action == "replayed":
            return False
        refused = isinstance(error, GatewayError) and not self._was_sent and self._upstream_seconds is None
        return not refused


def _tells_more(error: GatewayError, known: GatewayError | None) -> bool:
    """Whether an error tells the client of a call that nobody has answered more than an earlier one."""
    if isinstance(known, GatewayOverloaded) and isinstance(error, GatewayOverloaded):
        # Whoever comes again asks all of them: the one that has room first says when.
        return known.retry_after is None or (error.retry_after is not None and error.retry_after <= known.retry_after)
    # That a larger model is in trouble tells more than that a smaller one lacks the room.
    return not isinstance(known, UpstreamError) or isinstance(error, UpstreamError)


def _used_by(call: RelayCall, told: Usage | None) -> Usage | None:
    """What a request that was passed on has used, once an upstream has begun to answer; None for nothing.

    Args:
        told: What the upstream has told. For the rest, the request says what counts.
    """
    used = told or Usage(0, 0)
    if call.prompt_tokens and not used.total_tokens:
        used = replace(used, prompt_tokens=call.prompt_tokens, estimated=True)
    if call.amount:
        used = replace(used, unit=call.unit, amount=call.amount)
    return used if used.total_tokens or used.amount else None


def _outcome(error: BaseException | None) -> tuple[Outcome, str | None, int]:
    """How a call ended, with which error code and HTTP status."""
    if error is None:
        return "completed", None, 200
    if not isinstance(error, Exception) or isinstance(error, ClientClosedRequest):
        return "abandoned", None, ClientClosedRequest.status
    if isinstance(error, LimitReached | LimitsUnavailable):
        return "refused", error.code, error.status
    if isinstance(error, GatewayError):
        return "failed", error.code or error.type, error.status  # as refusals have it
    return "failed", "internal_error", 500
