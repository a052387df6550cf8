"""Where sessions and responses are kept."""

import importlib
import multiprocessing
import sys
from typing import TYPE_CHECKING

import structlog

from app.chat.answer_cache import AnswerCache, CachePolicy
from app.domain.spans import Trace
from app.observe.metrics import Metrics
from app.sessions.base import SnapshotStore
from app.sessions.memory import MemorySessionStore, MemorySnapshotStore
from app.settings import Settings, SettingsError

if TYPE_CHECKING:  # Redis's client takes 6 MB, which most gateways have no use for
    from app.sessions.redis.store import RedisSessionStore

# As many as find room in 32 MiB.
_ANSWERS_IN_MEMORY = 4096
_ANSWERS_OF_PROJECT = 1000


def session_store(settings: Settings, trace: Trace) -> "MemorySessionStore | RedisSessionStore":
    """Make the store that `SESSION_STORE_URL` names.

    Raises:
        SettingsError: The address can't be understood.
    """
    sessions = settings.sessions
    if sessions.shared:
        return _redis_sessions(settings, trace)
    if _one_of_several_processes():
        structlog.get_logger("kimi.assembly").warning(
            "sessions_not_shared",
            meaning="several processes share this port, each with sessions of its own: clients will be forgotten. "
            "Set SESSION_STORE_URL to a Redis, or run ./dev cluster",
        )
    return MemorySessionStore(
        max_sessions=sessions.max_sessions,
        time_to_live=sessions.time_to_live,
        lock_wait=sessions.lock_wait,
        trace=trace,
    )


def snapshot_store(settings: Settings, sessions: "MemorySessionStore | RedisSessionStore") -> SnapshotStore:
    """Make the store of responses, next to the sessions."""
    most, time_to_live = settings.sessions.max_responses, settings.sessions.response_time_to_live
    if isinstance(sessions, MemorySessionStore):
        return MemorySnapshotStore(max_snapshots=most, time_to_live=time_to_live)
    return sessions.snapshots(max_snapshots_per_caller=most, time_to_live=time_to_live)


def answer_cache(
    settings: Settings, sessions: "MemorySessionStore | RedisSessionStore", metrics: Metrics
) -> AnswerCache | None:
    """Make the cache of answers, next to the sessions; None if it is off."""
    answers = settings.answers
    if not answers.seconds:
        return None
    store: SnapshotStore
    if isinstance(sessions, MemorySessionStore):
        store = MemorySnapshotStore(max_snapshots=_ANSWERS_IN_MEMORY, time_to_live=answers.seconds)
    else:
        store = sessions.snapshots(max_snapshots_per_caller=_ANSWERS_OF_PROJECT, time_to_live=answers.seconds)
    policy = CachePolicy(answers.seconds, tuple(answers.models))
    return AnswerCache(store, policy, on_look_up=metrics.answer_looked_up)


def _redis_sessions(settings: Settings, trace: Trace) -> "RedisSessionStore":
    sessions = settings.sessions
    # Imported only now: see above.
    module = importlib.import_module("app.sessions.redis.store")
    try:
        store: RedisSessionStore = module.RedisSessionStore(
            sessions.store_url.get_secret_value(),
            max_sessions_per_caller=sessions.max_sessions,
            time_to_live=sessions.time_to_live,
            lock_wait=sessions.lock_wait,
            lock_ttl=sessions.lock_ttl,
            trace=trace,
        )
    except ValueError as error:
        raise SettingsError(f"SESSION_STORE_URL: {error}") from None
    return store


def _one_of_several_processes() -> bool:
    """Is this a process of `uvicorn --workers N`? (Of `--reload` there is only one at a time.)"""
    return multiprocessing.parent_process() is not None and "--reload" not in sys.argv
