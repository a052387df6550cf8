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
    SHORT_TEXT,
    Action,
    LastTurn,
    Plan,
    SessionKey,
    SessionRecord,
    fingerprint,
    is_full_history,
    mentions_task,
    plan,
    remember,
)
from app.domain.errors import SessionStoreUnavailable
from app.domain.prompt import Prompt
from app.domain.waits import OnWait, Waiting
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
    history. Many clients send one `user` with all of their chats: a call that has its session only by `user`, and needs
    nothing of what is remembered, waits for nobody and keeps nobody waiting.

    Args:
        store: Where sessions are.
        policy: How they are treated.
        call: The call.
        caller: Whose it is.
        on_wait: Told how long the session was waited for.

    Attributes:
        action: What the call means for the session.
        messages: The conversation to be answered.
        replay: The answer that this very request was given a moment ago.
        conversation_id: See `CompletionRequest`.

    Raises:
        SessionNotFound: On entering, if the client wants no new session in place of a missing one.
        SessionBusy: On entering, if another call of the session doesn't end in time.
        SessionStoreUnavailable: On entering, if the call can't do without the store.
    """

    __slots__ = (
        "_began",
        "_call",
        "_held",
        "_hold",
        "_is_plain",
        "_key",
        "_on_wait",
        "_plan",
        "_policy",
        "_store",
        "action",
        "conversation_id",
        "messages",
        "replay",
    )

    def __init__(
        self,
        store: SessionStore,
        policy: SessionPolicy,
        call: ChatCall,
        caller: Caller,
        on_wait: OnWait | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._call = call
        self._on_wait = on_wait
        self._key = SessionKey(caller.id, call.session.id) if call.session is not None else None
        self._hold: AbstractAsyncContextManager[HeldSession] | None = None
        self._held: HeldSession | None = None
        self._plan: Plan | None = None
        self._is_plain = False
        # When the session began, in seconds since the epoch.
        self._began = 0.0
        self.action: Action = "stateless"
        self.messages = call.messages
        self.replay: LastTurn | None = None
        self.conversation_id: str | None = None

    async def __aenter__(self) -> Self:
        call, key = self._call, self._key
        if key is None:
            return self
        if call.session is not None and call.session.source == "user":
            first = call.messages[0].text
            self._is_plain = len(call.messages) == 1 and len(first) <= SHORT_TEXT and not mentions_task(first)
            if not self._is_plain and await self._needs_no_memory(key):
                return self
        with Waiting("session", self._on_wait):
            await self._take(self._store.hold(key), key)
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
        if self._key is None or self._plan is None or self.action == "stateless":
            return
        call, answer = self._call, ending.completion
        session = remember(
            call,
            self._plan,
            Message("assistant", answer.text or answer.refusal, tool_calls=answer.tool_calls),
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
                refusal=answer.refusal,
            ),
            created_at=self._began,
            max_characters=self._policy.max_characters,
        )
        record = SessionRecord(session, self._plan.client_keeps_history)
        try:
            if self._held is not None:
                await self._held.save(record)
            else:
                await self._store.replace(self._key, record)
        except SessionStoreUnavailable:
            # Clients that send the whole conversation lose nothing; those that rely on the memory must know.
            if not is_full_history(call.messages):
                raise

    async def _needs_no_memory(self, key: SessionKey) -> bool:
        """Decide on a call that is a conversation of its own, without holding the session; False if it is none."""
        is_whole = is_full_history(self._call.messages)
        try:
            stored = await self._store.load(key)
        except SessionStoreUnavailable:
            return is_whole  # then it is stateless; any other call is refused when it tries to take the session
        # If it is none, this is decided once more when the session is held.
        self._decide(SessionRecord(stored), key)
        return is_whole or self.action == "stateless"

    async def _take(self, hold: AbstractAsyncContextManager[HeldSession], key: SessionKey) -> None:
        try:
            self._held = held = await hold.__aenter__()
        except SessionStoreUnavailable:
            if is_full_history(self._call.messages):
                return
            raise
        self._hold = hold
        try:
            self._decide(held.record, key)
        except BaseException as error:
            await hold.__aexit__(type(error), error, error.__traceback__)
            raise
        if held.record.client_keeps_history and self.action == "new":
            # Such a client's chats are all of their own: none waits for another.
            self._hold = self._held = None
            await hold.__aexit__(None, None, None)

    def _decide(self, record: SessionRecord, key: SessionKey) -> None:
        now = time.time()
        decided = plan(self._call, record, now=now, replay_seconds=self._policy.replay_seconds, is_plain=self._is_plain)
        stored = record.session
        goes_on = stored is not None and decided.action in ("continued", "replaced")
        self._plan = decided
        self._began = stored.created_at if stored is not None and goes_on else now
        self.action, self.messages, self.replay = decided.action, decided.messages, decided.replay
        self.conversation_id = None
        if decided.action != "stateless":
            self.conversation_id = f"{key.caller_id}\n{key.session_id}\n{self._began}"
