"""Answers that are given again to the same request, of the same project, if that is asked for.

An answer is kept under a digest of everything that it depends on. Only the very same request finds it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Self

from msgspec import Struct, convert, to_builtins
from msgspec.structs import replace

from app.chat.deltas import as_deltas
from app.chat.events import Answer, Ending, Opening
from app.chat.fitting import tools_among
from app.domain.caller import ENVIRONMENT, Caller
from app.domain.chat import ChatCall, Completion, Delta, NativeEvent, Usage
from app.domain.documents import UnreadableDocument, pack, unpack
from app.domain.errors import SessionStoreUnavailable
from app.domain.json import exact_json_bytes
from app.domain.prompt import Prompt
from app.providers.registry import Target
from app.sessions.base import SnapshotKey, SnapshotStore

# Longer answers are not kept, in bytes.
LONGEST_ANSWER = 256 * 1024
# Apart from whatever else the store keeps for callers: none has an id with a NUL in it.
_SCOPE = "answers\0"


class CachePolicy(Struct, frozen=True):
    """Which answers are kept.

    Args:
        seconds: How long, and the oldest that any request may get.
        models: Patterns, in lower case, of the names of models and routes whose requests need not ask for it.
    """

    seconds: float
    models: tuple[str, ...] = ()


class KeptAnswer(Struct, frozen=True, omit_defaults=True):
    """An answer as it is kept.

    Args:
        at: When it was given, in seconds since the epoch.
        provider: Who gave it.
        model: With which model.
        completion: The answer.
        usage: What it took then.
        prompt_size: The size of its prompt, in the unit of the model's limit.
        prompt_tokens: The same in tokens.
        ignored: What the model didn't take.
        events: A streamed answer in the form of its request, if it came in that form.
        upstream: Stands for what was behind provider and model.
    """

    at: float
    provider: str
    model: str
    completion: Completion
    usage: Usage
    prompt_size: int
    prompt_tokens: int
    ignored: tuple[str, ...] = ()
    events: tuple[NativeEvent, ...] = ()
    upstream: str = ""


class Hit(Struct, frozen=True):
    """A kept answer that answers a call.

    Args:
        target: Who gave it.
        prompt: What is still known of its prompt.
        answer: The answer.
        deltas: The same in parts.
    """

    target: Target
    prompt: Prompt
    answer: Answer
    deltas: Sequence[Delta]

    @classmethod
    def of(cls, call: ChatCall, kept: KeptAnswer, target: Target, age: float) -> Self:
        """A kept answer as the answer to a call."""
        prompt = Prompt(size=kept.prompt_size, limit=target.spec.prompt_limit, tokens=kept.prompt_tokens)
        opening = Opening(
            model=call.model,
            provider=target.provider.name,
            session_id=None,
            action="replayed",
            prompt=prompt,
            options_taken="options" in target.spec.abilities,
            ignored=kept.ignored,
            native=bool(kept.events) or kept.completion.native is not None,
            cache_age=max(0, int(age)),
        )
        deltas = [Delta(native=kept.events, whole=True)] if kept.events else as_deltas(kept.completion)
        return cls(target, prompt, Answer(opening, Ending(kept.completion, kept.usage)), deltas)


class CacheSlot:
    """The place of one call's answer in the cache.

    Attributes:
        hit: The answer that was found there; None if there is none that will do.
    """

    __slots__ = ("_clock", "_key", "_store", "hit")

    def __init__(self, store: SnapshotStore, key: SnapshotKey, clock: Callable[[], float], hit: Hit | None) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self.hit = hit

    async def keep(self, target: Target, opening: Opening, ending: Ending, deltas: Sequence[Delta] = ()) -> None:
        """Keep an answer, if it is whole and its prompt was. A store that can't be reached keeps nothing.

        Args:
            target: Who gave it.
            opening: Its beginning.
            ending: Its end.
            deltas: Its parts as they came, if they were streamed.
        """
        completion, prompt = ending.completion, opening.prompt
        if completion.finish_reason not in ("stop", "tool_calls") or completion.refusal:
            return
        if not (completion.text or completion.tool_calls):
            return
        if prompt.dropped or prompt.shortened or tools_among(opening.ignored):
            return
        kept = KeptAnswer(
            at=self._clock(),
            provider=target.provider.name,
            model=target.spec.id,
            completion=completion,
            usage=ending.usage,
            prompt_size=prompt.size,
            prompt_tokens=prompt.tokens,
            ignored=opening.ignored,
            events=tuple([event for delta in deltas for event in delta.native]),
            upstream=_upstream_of(target),
        )
        try:
            data = pack(to_builtins(kept))
            if len(data) <= LONGEST_ANSWER:
                await self._store.save(self._key, data)
        except (SessionStoreUnavailable, TypeError, ValueError, OverflowError, RecursionError):
            return  # what can't be kept is asked for again


class AnswerCache:
    """Finds and keeps answers.

    Args:
        store: Keeps them, for as long as the policy says.
        policy: Which ones.
        on_look_up: Told of each look-up: "hit" or "miss".
        clock: The time of day; replaced by tests that let time pass.
    """

    def __init__(
        self,
        store: SnapshotStore,
        policy: CachePolicy,
        *,
        on_look_up: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._policy = policy
        self._on_look_up = on_look_up
        self._clock = clock

    async def look_up(self, call: ChatCall, caller: Caller, targets: Sequence[Target]) -> CacheSlot | None:
        """The place of a call's answer; None if it has none.

        Args:
            call: The call.
            caller: Whose it is.
            targets: Who may answer it: nobody else's answer is found.
        """
        max_age = self._max_age(call)
        digest = None if max_age is None else _digest(call)
        if max_age is None or digest is None:
            return None
        key = SnapshotKey(_SCOPE + _owner(caller), digest)
        hit = await self._found(key, call, targets, max_age) if max_age > 0 else None
        self._on_look_up("miss" if hit is None else "hit")
        return CacheSlot(self._store, key, self._clock, hit)

    def _max_age(self, call: ChatCall) -> float | None:
        """How old an answer may be that answers a call, in seconds; None if it is to be neither found nor kept."""
        if call.session is not None or call.n != 1:
            return None
        wish = call.cache
        if wish is not None:
            return min(wish.max_age, self._policy.seconds) if wish.keeps else None
        # Who sets a temperature above 0, and says nothing of kept answers, wants answers that differ.
        if call.options.get("temperature"):
            return None
        name = call.model.lower()
        return self._policy.seconds if any(fnmatchcase(name, pattern) for pattern in self._policy.models) else None

    async def _found(self, key: SnapshotKey, call: ChatCall, targets: Sequence[Target], max_age: float) -> Hit | None:
        try:
            data = await self._store.load(key)
            kept = None if data is None else convert(unpack(data), KeptAnswer)
        except (SessionStoreUnavailable, UnreadableDocument, ValueError, TypeError, RecursionError):
            return None
        if kept is None:
            return None
        age = self._clock() - kept.at
        if age > max_age:
            return None
        for target in targets:
            names = (target.provider.name, target.spec.id)
            # The names may have become those of another upstream, or of another model of it.
            if names == (kept.provider, kept.model) and _upstream_of(target) == kept.upstream:
                return Hit.of(call, kept, target, age)
        return None


def _upstream_of(target: Target) -> str:
    """Stands for the upstream, and its model, behind a target's names."""
    return f"{target.provider.identity} {target.spec.upstream_id}"


def _owner(caller: Caller) -> str:
    """Who shares answers: the keys of a project. Those of the environment have none in common."""
    return f"{caller.project}\0{caller.id}" if caller.project == ENVIRONMENT else caller.project


def _digest(call: ChatCall) -> str | None:
    """Stands for everything that an answer depends on; None if the call has something in it that can't be written."""
    native = call.native
    # All fields but those that say how the call is to be treated: a new field counts unless it is named here.
    told = replace(
        call, native=None, cache=None, reset=False, strict=False, is_retry=False, idempotency_key=None, session=None
    )
    parts: list[object] = [told]
    if native is not None:
        # As Latin-1, which reads any bytes. Whether it is streamed is one of the fields: the two have different forms.
        fields = {name: bytes(value).decode("latin-1") for name, value in native.fields.items()}
        parts += [native.kind, fields, native.headers]
    try:
        return hashlib.sha256(exact_json_bytes(to_builtins(parts, order="sorted"))).hexdigest()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
