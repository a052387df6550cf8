"""A call's session: taken before the call is answered, written after, let go however it ends."""

import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from msgspec import Struct

from app.chat.events import Ending
from app.domain.caller import Caller
from app.domain.chat import ChatCall, Completion, Message
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
from app.domain.errors import SessionStoreUnavailable
from app.domain.prompt import Prompt
from app.sessions.base import HeldSession, SessionStore


class SessionPolicy(Struct, frozen=True):
    """How sessions are treated.

    Args:
        replay_seconds: For how long a request that is sent again gets the answer of the first time.
        max_characters: The most that is remembered of one session.
    """

    replay_seconds: float = 60.0
    max_characters: int = 200_000


class CallSession:
    """What a call means for its session, in an `async with` block during which nobody else has the session.

    A call without a session is its own conversation. So is, while the store is down, one that brings its whole history.

    Args:
        store: Where sessions are.
        policy: How they are treated.
        call: What came.
        caller: Whose sessions they are.

    Attributes:
        key: Where the session is; None if the call has none.
        plan: Set on entering.
        is_open: Has it been entered?
        began: When the session began, in seconds since the epoch.

    Raises:
        SessionNotFound: On entering, if the client wants no new session in place of a missing one.
        SessionBusy: On entering, if another call of the session doesn't end.
        SessionStoreUnavailable: On entering, if the call can't do without it.
    """

    __slots__ = ("_call", "_held", "_hold", "_policy", "_store", "began", "is_open", "key", "plan")

    def __init__(self, store: SessionStore, policy: SessionPolicy, call: ChatCall, caller: Caller) -> None:
        self._store = store
        self._policy = policy
        self._call = call
        self._hold: AbstractAsyncContextManager[HeldSession] | None = None
        self._held: HeldSession | None = None
        self.key = SessionKey(caller.id, call.session.id) if call.session is not None else None
        self.plan = Plan("stateless", call.messages)
        self.began = 0.0
        self.is_open = False

    async def __aenter__(self) -> Self:
        if self.key is not None:
            await self._take(self._store.hold(self.key))
        self.is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hold is not None:
            await self._hold.__aexit__(kind, error, traceback)

    async def remember(self, answer: Completion, ending: Ending, prompt: Prompt) -> None:
        """Keep the answered turn, if there is a session.

        Raises:
            SessionStoreUnavailable: It could not be kept, and the client relies on it.
        """
        if self._held is None:
            return
        call = self._call
        now = time.time()
        session = remember(
            call,
            self.plan,
            Message("assistant", answer.text, tool_calls=answer.tool_calls),
            last_turn=LastTurn(
                fingerprint=fingerprint(call.model, call.messages),
                idempotency_key=call.idempotency_key,
                text=answer.text,
                tool_calls=answer.tool_calls,
                finish_reason=ending.finish_reason,
                usage=ending.usage,
                prompt_size=prompt.size,
                dropped=prompt.dropped,
                shortened=prompt.shortened,
                at=now,
                stop=ending.stop,
            ),
            created_at=self.began,
            max_characters=self._policy.max_characters,
        )
        try:
            await self._held.save(SessionRecord(session, self.plan.client_keeps_history))
        except SessionStoreUnavailable:
            # Whoever sends the whole conversation loses nothing; whoever relies on the memory must know.
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
            self._make_plan(held.record)
        except BaseException as error:
            await hold.__aexit__(type(error), error, error.__traceback__)
            raise

    def _make_plan(self, record: SessionRecord) -> None:
        now = time.time()
        self.plan = plan(self._call, record, now=now, replay_seconds=self._policy.replay_seconds)
        stored = record.session
        goes_on = stored is not None and self.plan.action in ("continued", "replaced")
        self.began = stored.created_at if stored is not None and goes_on else now
