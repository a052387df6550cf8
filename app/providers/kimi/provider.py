"""The flow of one message: nonce, post, answer; and once more with a fresh page if the site rejects the nonce."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from app.domain.chat import Completion, Delta
from app.domain.errors import CloudflareChallenge, EmptyReply, NonceRejected
from app.domain.prompt import TextPrompt
from app.domain.spans import Trace, no_trace
from app.providers.base import BaseProvider, CompletionRequest, ModelSpec, ProviderStatus
from app.providers.http import HttpClient, HttpError
from app.providers.kimi.nonce import NoncePolicy, NonceSource
from app.providers.kimi.page import Clearance, PageReader
from app.providers.kimi.reply import read_reply
from app.providers.kimi.request import lasting_session_id, message_form, new_session_id
from app.providers.resilience.guard import Guard
from app.providers.upstream_errors import translated

# That the page can be had says nothing about the end of these.
_NOT_OVER = (CloudflareChallenge, NonceRejected)


class KimiProvider(BaseProvider):
    """The Kimi web chat.

    Args:
        models: The models that the site offers.
        page: Fetches the chat page.
        nonce_policy: When to fetch it again.
        client: Sends the messages.
        guard: Bounds and retries them.
        keep_upstream_session: Use one upstream session id for all turns of a session, instead of one for each message.
        trace: Opens spans for page fetches and messages.
    """

    name = "kimi-web"

    def __init__(
        self,
        *,
        models: Sequence[ModelSpec],
        page: PageReader,
        nonce_policy: NoncePolicy,
        client: HttpClient,
        guard: Guard,
        keep_upstream_session: bool = False,
        trace: Trace = no_trace,
    ) -> None:
        self.models = tuple(models)
        self._client = client
        self._guard = guard
        self.timeout = guard.timeout
        self._keep_upstream_session = keep_upstream_session
        self._nonces = NonceSource(page.fetch, nonce_policy, on_new=self._use, trace=trace)
        self._trace = trace
        self._renewal: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start fetching the nonce in the background."""
        await self._client.open()
        self._renewal = asyncio.create_task(self._nonces.keep_fresh())

    async def aclose(self) -> None:
        """Stop the renewal and close all connections."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._nonces.aclose()
        await self._client.aclose()

    def status(self) -> ProviderStatus:
        """Ready while there is a good nonce, or one is about to be fetched, and the breaker lets requests through."""
        nonce, breaker = self._nonces.state, self._guard.breaker.state
        details: dict[str, str] = {"nonce": nonce, "breaker": breaker}
        if self._nonces.failure is not None:
            details["nonce_failure"] = self._nonces.failure.code or ""
            if self._nonces.failure.reason:
                details["nonce_failure_reason"] = self._nonces.failure.reason
        if reason := self._guard.failure_reason():
            details["failure_reason"] = reason
        gauges = {
            "nonce_age_seconds": self._nonces.age,
            "nonce_fetches": float(self._nonces.fetches),
            "breaker_closed": float(breaker == "closed"),
            "pause_seconds": self._guard.pause.seconds,
            "queue_depth": float(self._guard.bulkhead.queued),
            "slots_free": float(self._guard.bulkhead.free),
        }
        return ProviderStatus(nonce in ("fresh", "pending") and breaker != "open", details, gauges)

    async def connect(self) -> None:
        """Fetch the page and its nonce, unless that has been done."""
        await self._nonces.current()

    # Here and below, plain functions that return a coroutine: an `async def` around it would be one more for each call.

    def create_completion(self, request: CompletionRequest) -> Coroutine[Any, Any, Completion]:
        """The site's answer, which arrives whole."""
        return self._guard.run(
            partial(self._exchange, request),
            caller_id=request.caller_id,
            deadline=request.deadline,
            retries=request.retries,
            on_wait=request.on_wait,
        )

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The same answer as a single part; the API types it out to the client."""
        completion = await self.create_completion(request)
        yield Delta(completion.text, whole=True)

    async def _exchange(self, request: CompletionRequest) -> Completion:
        clearance = await self._nonces.current(request.on_wait)
        try:
            return await self._send(request, clearance)
        except (NonceRejected, CloudflareChallenge) as rejection:
            fresh = await self._nonces.replace(clearance, rejection, request.on_wait)
        try:
            return await self._send(request, fresh)
        except (NonceRejected, CloudflareChallenge) as rejection:
            self._nonces.condemn(fresh, rejection)
            raise

    def _send(self, request: CompletionRequest, clearance: Clearance) -> Coroutine[Any, Any, Completion]:
        prompt = request.prompt
        if isinstance(prompt, TextPrompt) and prompt.earlier_parts:
            return self._send_parts(prompt, request, clearance)
        return self._post(prompt.text, request, clearance, self._upstream_session(request))

    async def _send_parts(self, prompt: TextPrompt, request: CompletionRequest, clearance: Clearance) -> Completion:
        # A session of their own: were they sent again into the same one, they would be in it twice.
        session_id = new_session_id()
        for part in prompt.earlier_parts:
            with suppress(EmptyReply):  # nothing need be said to a part
                await self._post(part, request, clearance, session_id)
        return await self._post(prompt.text, request, clearance, session_id)

    async def _post(
        self, message: str, request: CompletionRequest, clearance: Clearance, session_id: str
    ) -> Completion:
        form = message_form(
            nonce=clearance.nonce, message=message, model=request.model.upstream_id, session_id=session_id
        )
        with self._trace("upstream"):
            try:
                reply = await self._client.post_form(clearance.ajax_url, form, clearance.headers)
            except HttpError as error:
                raise translated(error) from error
            text = read_reply(reply, nonce=clearance.nonce)
        self._nonces.approve(clearance)
        return Completion(text)

    def _upstream_session(self, request: CompletionRequest) -> str:
        if not self._keep_upstream_session or request.conversation_id is None:
            return new_session_id()
        return lasting_session_id(request.conversation_id)

    def _use(self, clearance: Clearance) -> None:
        if self._nonces.state == "failing" and not isinstance(self._nonces.failure, _NOT_OVER):
            # The site was down, and is back: requests that failed for want of a nonce say nothing about it any more.
            self._guard.breaker.probe_now()
        self._client.keep_cookies(clearance.page_url, clearance.cookies, instead=clearance.new_visitor)
