"""One request that is passed on, from beginning to end: model, limits, provider, record."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec import Struct

from app.chat.call_log import CallLog
from app.chat.passage import pass_limits
from app.domain.caller import Caller
from app.domain.errors import GatewayError, InvalidRequest
from app.domain.relay import RelayCall, RelayHead, Service
from app.domain.usage import CallRecord, Origin, refused
from app.limits.limiter import Admission, Limiter
from app.providers.base import RelayRequest
from app.providers.registry import ProviderRegistry, Target

_WORDS: dict[Service, str] = {
    "embeddings": "make embeddings",
    "rerank": "rank documents",
    "moderation": "judge texts for moderation",
    "image_generation": "make images",
    "transcription": "transcribe speech",
    "speech": "speak",
}
# A client that is slower with its upload than this part of the upstream's time would leave it none to answer in.
_UPLOAD_PART = 0.5


class RelayOpening(Struct, frozen=True):
    """The beginning of an answer; it becomes status and headers.

    Args:
        head: What the upstream says of it.
        provider: Who answers.
        fallback: The providers that were passed over, each as `provider=reason`.
        admission: By the limits of its caller; None if there are none.
    """

    head: RelayHead
    provider: str
    fallback: tuple[str, ...]
    admission: Admission | None


class RelayService:
    """Passes requests on to upstreams whose endpoints the gateway doesn't speak itself.

    Args:
        registry: Finds the providers of a model.
        on_call: Take the record of every call when it is over. They must return at once: they may run while a task is
            being cancelled.
        on_refusal: Take the record of every call whose model nobody serves, or that can't do this, likewise.
        limiter: Lets calls in as far as their limits allow; None if nothing is limited.
    """

    def __init__(
        self,
        *,
        registry: ProviderRegistry,
        on_call: Sequence[Callable[[CallRecord], None]] = (),
        on_refusal: Sequence[Callable[[CallRecord], None]] = (),
        limiter: Limiter | None = None,
    ) -> None:
        self._registry = registry
        self._on_call = on_call
        self._on_refusal = on_refusal
        self._limiter = limiter

    async def relay(
        self, call: RelayCall, caller: Caller, origin: Origin
    ) -> AsyncGenerator[RelayOpening | bytes, None]:
        """Pass a request on: one `RelayOpening`, then the answer's body as it comes.

        Raises:
            GatewayError: No answer can be had, or it broke off.
        """
        targets = self._able(call, caller, origin)
        with CallLog(call, caller, targets[0], self._on_call, origin=origin) as log:
            if self._limiter is not None and self._limiter.limits_calls:
                provider, model = targets[0].provider.name, targets[0].spec.id
                log.admission = await self._limiter.admit(call, caller, provider, model, log.note_wait)
            deadline = asyncio.get_running_loop().time() + max([target.provider.timeout for target in targets])
            for others, target in zip(reversed(range(len(targets))), targets, strict=True):
                log.turn_to(target)
                try:
                    request = _request(call, caller, target, deadline, log, others=others)
                    await pass_limits(self._limiter, call, caller, target, request, log)
                    async with aclosing(target.provider.relay(request)) as parts:
                        async for part in parts:
                            if isinstance(part, RelayHead):
                                log.answered()
                                yield _opening(part, target, log)
                            else:
                                yield part
                except GatewayError as error:
                    log.failed(error)
                    if log.has_answered or not error.try_elsewhere or not call.body.can_be_sent:
                        raise
                    log.pass_over(target, error)
                    continue
                log.passed_on(call)
                return
            raise log.refusal()

    def _able(self, call: RelayCall, caller: Caller, origin: Origin) -> tuple[Target, ...]:
        """Who can answer a call, in the order in which they are to be asked; at least one."""
        try:
            model = call.model or self._one_that_can(call.service, caller, call.provider)
            if model is None:
                raise InvalidRequest(
                    f"Name a model: no model that is known here can {_WORDS[call.service]}.", param="model"
                )
            able = tuple(
                [
                    target
                    for target in self._registry.resolve(model, call.provider, caller)
                    if target.provider.relays and target.spec.may_serve(call.service)
                ]
            )
            if not able:
                raise self._unable(model, call, caller)
        except GatewayError as error:
            record = refused(caller, origin, error.code or error.type, error.status, model=call.model or "")
            for take in self._on_refusal:
                take(record)
            raise
        return able

    def _unable(self, model: str, call: RelayCall, caller: Caller) -> InvalidRequest:
        """The error for a model that can't do what it is asked for."""
        words = _WORDS[call.service]
        other = self._one_that_can(call.service, caller, call.provider)
        if other is not None:
            hint = f"{other!r} can."
        elif any(provider.relays for provider in self._registry.providers):
            hint = "No model that is known here can; another one of an upstream with an API can be named by its name."
        else:
            hint = "No upstream here can: that takes one with an API."
        return InvalidRequest(
            f"The model {model[:100]!r} can't {words}. {hint}", param="model", code="unsupported_value"
        )

    def _one_that_can(self, service: Service, caller: Caller, provider: str | None) -> str | None:
        """The first model that is known to do something."""
        for name, target in self._registry.model_ids(caller=caller):
            if (
                target.provider.relays
                and service in (target.spec.services or ())
                and provider in (None, target.provider.name)
            ):
                return name
        return None


def _request(
    call: RelayCall,
    caller: Caller,
    target: Target,
    deadline: float,
    log: CallLog,
    *,
    others: int,
) -> RelayRequest:
    """What a target is sent. The last one may use up the time; any other leaves half of it to those behind it."""
    now = asyncio.get_running_loop().time()
    is_whole = call.body.is_whole
    share = (deadline - now) / 2 if others and is_whole else deadline - now
    seconds = min(target.provider.timeout, share)
    return RelayRequest(
        model=target.spec,
        path=call.path,
        subject=call.subject,
        payload=call.body.payload(target.spec.upstream_id, seconds * _UPLOAD_PART),
        caller_id=caller.id,
        deadline=now + seconds,
        retries=is_whole and not others,
        report=log.note_replies,
        on_wait=log.note_wait,
        unit=None if call.amount else call.unit,
    )


def _opening(head: RelayHead, target: Target, log: CallLog) -> RelayOpening:
    passed_over = tuple([f"{provider}={reason}" for provider, reason in log.passed_over])
    return RelayOpening(head, target.provider.name, passed_over, log.admission)
