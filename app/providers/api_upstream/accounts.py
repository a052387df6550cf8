"""Several keys of one upstream: which of them a call is made with, and what stops a key.

A key that is refused, or has no quota left, is set aside: others are taken as long as there are any. A pause that the
upstream asks for stops one key for one model. With all keys stopped, an upstream behaves like one with a single key.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Generic, Self, TypeVar

import structlog
from msgspec import Struct

from app.domain.errors import (
    GatewayError,
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
)
from app.providers.resilience.breaker import BreakerCall, CircuitBreaker, RequestedPause
from app.providers.resilience.guard import Guard

S = TypeVar("S")
T = TypeVar("T")

# How long a key that was refused is set aside, in seconds.
SET_ASIDE = 600.0
# A conversation stays with its key while that has no more calls beyond those of the least busy one.
_MARGIN = 2
# Of so many models it is kept in mind what stops a key. Clients may make names up.
_MOST_MODELS = 256
# What concerns the key of a call, so that another may do better.
_OF_KEY = (UpstreamKeyRejected, UpstreamQuotaExhausted, UpstreamRateLimited)


class Refusal(Struct, frozen=True):
    """Why a key is set aside, and until when. Not the error itself: that would keep the whole request in memory."""

    kind: type[UpstreamError]
    until: float


class Account(Generic[S]):
    """One key of an upstream, and what is known of it.

    Args:
        upstream: The upstream's name, for the log.
        name: What the key is called: the variable that holds it, and its place there.
        key: The key itself. The conversations that are its own follow from it.
        sender: Makes calls with it.
        guard: The upstream's.
        of: How many keys there are.
    """

    def __init__(self, upstream: str, name: str, key: str, sender: S, guard: Guard, of: int = 1) -> None:
        self.name = name
        self.sender = sender
        self.calls = 0
        # When it was taken last, compared to the others.
        self.turn = 0
        # It has to open before the upstream's own, which counts the failures of all keys.
        self.breaker: CircuitBreaker = guard.new_breaker(share=2 * of)
        self._upstream = upstream
        self._clock = guard.clock
        self._digest = hashlib.blake2b(key.encode()).digest()
        self._new_pause = guard.new_pause
        # Both by model; a refusal of all models is under the empty name.
        self._refusals: dict[str, Refusal] = {}
        self._pauses: dict[str, RequestedPause] = {}

    def set_aside_until(self, model: str) -> float:
        """Until when the key is set aside, on the guard's clock; long ago if it isn't."""
        found = [refusal.until for name in ("", model) if (refusal := self._refusals.get(name)) is not None]
        return max(found, default=0.0)

    def is_set_aside(self, model: str) -> bool:
        """Whether the key was refused a while ago, for this model or for all."""
        return bool(self._refusals) and self.set_aside_until(model) > self._clock()

    def was_refused(self, model: str) -> bool:
        """Whether the key was refused when it was last used."""
        return bool(self._refusals) and ("" in self._refusals or model in self._refusals)

    def standing_refusal(self, model: str) -> UpstreamRateLimited | None:
        """The refusal whose pause still lasts."""
        pause = self._pauses.get(model)
        return None if pause is None else pause.standing_refusal()

    @property
    def is_failing(self) -> bool:
        """Whether its calls keep failing, and it isn't time for a probe."""
        return self.breaker.state == "open" or self.breaker.probing

    def refused_by(self, kind: type[UpstreamError]) -> bool:
        """Whether the key is set aside because of such an error."""
        now = self._clock()
        return any(one.until > now and issubclass(one.kind, kind) for one in self._refusals.values())

    @property
    def is_paused(self) -> bool:
        """Whether a pause lasts, for any model."""
        return any(pause.seconds for pause in self._pauses.values())

    def preference(self, conversation_id: bytes) -> bytes:
        """How much a conversation is this key's: it goes to the one with the largest."""
        return hashlib.blake2b(conversation_id, key=self._digest, digest_size=8).digest()

    def call(self, model: str) -> "AccountCall[S]":
        """Begin a call, for a `with` block, from whose end is learnt what there is to know of the key."""
        return AccountCall(self, model)

    def refuse(self, model: str, error: UpstreamError) -> None:
        """Set the key aside, and tell the log once, until it works again."""
        if not (error.concerns_all_models or model):
            return  # it may not list models, say: that tells nothing of calls
        place = "" if error.concerns_all_models else model
        if not self.is_set_aside(place):
            structlog.get_logger("kimi.upstream").warning(
                "upstream.key_set_aside", upstream=self._upstream, key=self.name, error=error.code, seconds=SET_ASIDE
            )
        self._refusals.pop(place, None)
        self._refusals[place] = Refusal(type(error), self._clock() + SET_ASIDE)
        _shorten(self._refusals)

    def accept(self, model: str) -> None:
        """Forget that the key was refused."""
        self._refusals.pop("", None)
        self._refusals.pop(model, None)

    def pause(self, model: str, error: UpstreamRateLimited) -> None:
        """Begin the pause that a refusal asks for."""
        if error.retry_after is not None:
            pause = self._pauses.pop(model, None) or self._new_pause()
            pause.note(error)
            self._pauses[model] = pause
            _shorten(self._pauses)


class AccountCall(Generic[S]):
    """A call that is made with a key."""

    __slots__ = ("_account", "_call", "_model", "_was_refused")

    def __init__(self, account: Account[S], model: str) -> None:
        self._account = account
        self._model = model
        self._was_refused = account.was_refused(model)
        # With nothing but failing keys, one of them is taken all the same.
        self._call = BreakerCall(account.breaker) if account.is_failing else account.breaker.call()

    def answered(self) -> None:
        """The upstream has begun to answer."""
        self._call.answered()
        if self._was_refused:
            self._was_refused = False
            self._account.accept(self._model)

    def __enter__(self) -> Self:
        self._account.calls += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        account = self._account
        account.calls -= 1
        if error is None:
            self.answered()
        elif isinstance(error, UpstreamRateLimited):
            account.pause(self._model, error)
        elif isinstance(error, _OF_KEY):
            account.refuse(self._model, error)
        self._call.__exit__(kind, error, traceback)


class Accounts(Generic[S]):
    """Makes calls with one of several keys, and with another one at once if that is refused.

    Args:
        accounts: The keys.
    """

    def __init__(self, accounts: Sequence[Account[S]]) -> None:
        self._accounts = accounts
        self._turn = 0

    @property
    def details(self) -> Mapping[str, str]:
        """For `/ready`: the names of keys that are not used now, and why."""
        failing = [one.name for one in self._accounts if one.is_failing]
        found = {
            "keys_refused": [one.name for one in self._accounts if one.refused_by(UpstreamKeyRejected)],
            "keys_without_quota": [one.name for one in self._accounts if one.refused_by(UpstreamQuotaExhausted)],
            "keys_paused": [one.name for one in self._accounts if one.is_paused],
            # With all of them it is the upstream that fails.
            "keys_failing": failing if len(failing) < len(self._accounts) else [],
        }
        return {fact: ", ".join(names) for fact, names in found.items() if names}

    async def run(
        self, attempt: Callable[[S], Awaitable[T]], *, model: str = "", conversation_id: str | None = None
    ) -> T:
        """The result of `attempt`, with one key or, if that is refused, another.

        Args:
            attempt: One try with what sends a key.
            model: The upstream's name for the model that is asked; empty if models are not told apart.
            conversation_id: Its calls keep to one key, if that can be.

        Raises:
            UpstreamError: The last failure, or the refusal whose pause ends first.
        """
        failed: dict[Account[S], UpstreamError] = {}
        try:
            while True:
                account = self._next(model, conversation_id, failed)
                try:
                    with account.call(model):
                        return await attempt(account.sender)
                except _OF_KEY as error:
                    failed[account] = error
        finally:
            failed.clear()  # the errors refer back to this call

    async def stream(
        self,
        attempt: Callable[[S], AsyncGenerator[T, None]],
        *,
        model: str,
        conversation_id: str | None = None,
        once: bool = False,
    ) -> AsyncGenerator[T, None]:
        """The parts that `attempt` yields, with another key if one is refused before the first part.

        Args:
            attempt: As in `run`, like the following ones.
            model: Which model.
            conversation_id: Which conversation.
            once: Whether it can't be sent again.

        Raises:
            UpstreamError: As `run`, or the stream broke off.
        """
        failed: dict[Account[S], UpstreamError] = {}
        try:
            while True:
                account = self._next(model, conversation_id, failed)
                has_begun = False
                try:
                    with account.call(model) as call:
                        async with aclosing(attempt(account.sender)) as parts:
                            async for part in parts:
                                if not has_begun:
                                    has_begun = True
                                    call.answered()
                                yield part
                        return
                except _OF_KEY as error:
                    if has_begun or once:
                        if isinstance(error, UpstreamRateLimited):
                            error.retry_after = self._pause_of_all(model)  # its own is that key's alone
                        raise
                    failed[account] = error
        finally:
            failed.clear()  # the errors refer back to this call

    async def check(self, attempt: Callable[[S], Awaitable[object]]) -> None:
        """Try each key.

        Raises:
            GatewayError: The first one's refusal, after all were tried; anything else at once.
        """
        refusals: list[GatewayError] = []
        for account in self._accounts:
            try:
                with account.call(""):
                    await attempt(account.sender)
            except _OF_KEY as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _pause_of_all(self, model: str) -> float | None:
        """In how many seconds the first key can be used; None if one can be now."""
        refusals = [one.standing_refusal(model) for one in self._accounts if not one.is_set_aside(model)]
        pauses = [refusal.retry_after for refusal in refusals if refusal is not None and refusal.retry_after]
        return min(pauses) if len(pauses) == len(refusals) else None

    def _next(self, model: str, conversation_id: str | None, failed: Mapping[Account[S], UpstreamError]) -> Account[S]:
        """The key for the next try.

        Raises:
            UpstreamError: There is none: the error of the call.
        """
        waiting = [one for one in self._accounts if one not in failed and not one.is_set_aside(model)]
        all_set_aside = not waiting and not failed
        if all_set_aside:  # as with a single key, the upstream is asked all the same
            waiting = sorted(self._accounts, key=lambda one: one.set_aside_until(model))
        refusals = [one.standing_refusal(model) for one in waiting]
        free = [one for one, refusal in zip(waiting, refusals, strict=True) if refusal is None]
        if not free:
            raise _error_of([refusal for refusal in refusals if refusal is not None], failed)
        if all_set_aside:
            del free[1:]
        account = chosen(free, conversation_id)
        self._turn += 1
        account.turn = self._turn
        return account


def chosen(free: Sequence[Account[S]], conversation_id: str | None = None) -> Account[S]:
    """The key of a conversation unless it is clearly busier than others; else the least busy one, in turn.

    Args:
        free: The keys that can be used. Those that keep failing are used only if all do.
        conversation_id: None for a call that belongs to none.
    """
    candidates = [one for one in free if not one.is_failing] or free
    least_busy = min(candidates, key=lambda one: (one.calls, one.turn))
    if conversation_id is None or len(candidates) == 1:
        return least_busy
    asked_for = conversation_id.encode("utf-8", "surrogatepass")
    own = max(candidates, key=lambda one: one.preference(asked_for))
    return own if own.calls - least_busy.calls <= _MARGIN else least_busy


def _error_of(standing: Sequence[UpstreamRateLimited], failed: Mapping[Account[S], UpstreamError]) -> UpstreamError:
    """The error of a call that no key can be used for: the shortest pause, if a pause is all that stops one of them."""
    limited = [*standing, *(error for error in failed.values() if isinstance(error, UpstreamRateLimited))]
    if not limited:
        return list(failed.values())[-1]
    # One without a pause may be asked again at once.
    error = min(limited, key=lambda one: one.retry_after or 0.0)
    error.was_sent = bool(failed)
    return error


def _shorten(by_model: dict[str, T]) -> None:
    """Drop the oldest if there are too many, but never what concerns all models."""
    if len(by_model) > _MOST_MODELS:
        del by_model[next(name for name in by_model if name)]
