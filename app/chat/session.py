"""A call's session: taken before the call is answered, written after, released however it ends."""

import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from msgspec import Struct

from app.chat.events import Ending
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Message
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
from app.domain.errors import SessionStoreUnavailable
from app.domain.prompt import Prompt
from app.sessions.base import HeldSession, SessionStore


class SessionPolicy(Struct, frozen=True):
    """How sessions are treated.

    Args:
        replay_seconds: How long a request that is sent again gets the answer of the first time.
        max_characters: Characters that are remembered of one session.
    """

    replay_seconds: float = 60.0
    max_characters: int = 200_000


class CallSession:
    """What a call means for its session, within an `async with` block during which no other call has the session.

    A call without a session is a conversation of its own. So is, while the store is down, one that brings its whole
    history.

    Raises:
        SessionNotFound: On entering, if the client wants no new session in place of a missing one.
        SessionBusy: On entering, if another call of the session doesn't end in time.
        SessionStoreUnavailable: On entering, if the call can't do without the store.
    """

    __slots__ = ("_began", "_call", "_caller", "_held", "_hold", "_plan", "_policy", "_store")

    def __init__(self, store: SessionStore, policy: SessionPolicy, call: ChatCall, caller: Caller) -> None:
        self._store = store
        self._policy = policy
        self._call = call
        self._caller = caller
        self._hold: AbstractAsyncContextManager[HeldSession] | None = None
        self._held: HeldSession | None = None
        self._plan = Plan("stateless", call.messages)
        # When the session began, in seconds since the epoch.
        self._began = 0.0

    @property
    def action(self) -> Action:
        """What the call means for the session."""
        return self._plan.action

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation to be answered."""
        return self._plan.messages

    @property
    def replay(self) -> LastTurn | None:
        """The answer that this very request was given a moment ago."""
        return self._plan.replay

    @property
    def conversation_id(self) -> str | None:
        """See `CompletionRequest`."""
        session = self._call.session
        return None if session is None else f"{self._caller.id}\n{session.id}\n{self._began}"

    async def __aenter__(self) -> Self:
        if self._call.session is not None:
            await self._take(self._store.hold(SessionKey(self._caller.id, self._call.session.id)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hold is not None:
            await self._hold.__aexit__(kind, error, traceback)

    async def remember(self, ending: Ending, prompt: Prompt) -> None:
        """Keep the answered turn, if there is a session.

        Raises:
            SessionStoreUnavailable: It could not be kept, and the client relies on it.
        """
        if self._held is None:
            return
        call, answer = self._call, ending.completion
        session = remember(
            call,
            self._plan,
            Message("assistant", answer.text, tool_calls=answer.tool_calls),
            last_turn=LastTurn(
                fingerprint=fingerprint(call.model, call.messages),
                idempotency_key=call.idempotency_key,
                text=answer.text,
                tool_calls=answer.tool_calls,
                finish_reason=answer.finish_reason,
                usage=ending.usage,
                prompt_size=prompt.size,
                dropped=prompt.dropped,
                shortened=prompt.shortened,
                at=time.time(),
                stop=answer.stop,
            ),
            created_at=self._began,
            max_characters=self._policy.max_characters,
        )
        try:
            await self._held.save(SessionRecord(session, self._plan.client_keeps_history))
        except SessionStoreUnavailable:
            # Clients that send the whole conversation lose nothing; those that rely on the memory must know.
            if not is_full_history(call.messages):
                raise

    async def _take(self, hold: AbstractAsyncContextManager[HeldSession]) -> None:
        try:
            self._held = held = await hold.__aenter__()
        except SessionStoreUnavailable:
            if is_full_history(self._call.messages):
                return
            raise
        self._hold = hold
        try:
            self._decide(held.record)
        except BaseException as error:
            await hold.__aexit__(type(error), error, error.__traceback__)
            raise

    def _decide(self, record: SessionRecord) -> None:
        now = time.time()
        self._plan = plan(self._call, record, now=now, replay_seconds=self._policy.replay_seconds)
        stored = record.session
        goes_on = stored is not None and self._plan.action in ("continued", "replaced")
        self._began = stored.created_at if stored is not None and goes_on else now
