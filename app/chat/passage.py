"""The way to an upstream, which its own limits may close."""

import asyncio

from app.chat.call_log import CallLog
from app.domain.chat import ChatCall
from app.domain.relay import RelayCall
from app.limits.limiter import Limiter
from app.providers.base import CompletionRequest, RelayRequest
from app.providers.registry import Target


async def pass_upstream(
    limiter: Limiter | None,
    call: ChatCall | RelayCall,
    target: Target,
    request: CompletionRequest | RelayRequest,
    log: CallLog,
) -> None:
    """Wait for an upstream's limits to let a request through; not at all if another upstream may be asked.

    Args:
        limiter: None if nothing is limited.
        call: What the client asks: that is how much it is taken to need.
        target: Who is about to be asked.
        request: What for.
        log: Takes the admission.

    Raises:
        GatewayOverloaded: They leave no room for it.
    """
    if limiter is None or not limiter.limits_upstreams:
        return
    seconds = 0.0
    if request.retries and request.deadline is not None:
        seconds = request.deadline - asyncio.get_running_loop().time()
    provider, model = target.provider.name, target.spec.id
    log.passage = await limiter.at_upstream(call, provider, model, seconds, log.note_wait)
