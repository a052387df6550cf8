"""The way to an upstream, which limits may close: its own, and those that a caller has for its model."""

import asyncio

from app.chat.call_log import CallLog
from app.domain.caller import Caller
from app.domain.chat import ChatCall
from app.domain.relay import RelayCall
from app.limits.limiter import Limiter
from app.providers.base import CompletionRequest, RelayRequest
from app.providers.registry import Target


async def pass_limits(
    limiter: Limiter | None,
    call: ChatCall | RelayCall,
    caller: Caller,
    target: Target,
    request: CompletionRequest | RelayRequest,
    log: CallLog,
) -> None:
    """Wait for limits to let a request through to an upstream; not at all if another upstream may be asked.

    Args:
        limiter: None if nothing is limited.
        call: What the client asks: that is how much it is taken to need.
        caller: Whose it is.
        target: Who is about to be asked.
        request: What for.
        log: Takes the admissions.

    Raises:
        GatewayOverloaded: They leave no room for it.
    """
    if limiter is None:
        return
    model = target.spec.id
    is_other = limiter.limits_calls and model != log.admitted_models[0]
    if not (is_other or limiter.limits_upstreams):
        return
    seconds = 0.0
    if request.retries and request.deadline is not None:
        seconds = request.deadline - asyncio.get_running_loop().time()
    provider, wait = target.provider.name, log.note_wait
    if is_other:
        log.fallback = await limiter.at_fallback(call, caller, (provider, model), log.admitted_models, seconds, wait)
    if limiter.limits_upstreams:
        log.passage = await limiter.at_upstream(call, provider, model, seconds, wait)
