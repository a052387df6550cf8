"""What a worker forgets of limits that nobody uses any more."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

from app.domain.caller import Caller
from app.domain.chat import ChatCall, Usage
from app.domain.errors import LimitReached
from app.domain.granting import Scope, scoped
from app.domain.limits import read_limits
from app.domain.usage import CallRecord
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.store import _MOST_NAMES, MemoryStore

ADA = Caller("k_ada", "ada", "lab")
UTC = ZoneInfo("UTC")
TEN = Usage(10, 10)
CALL = ChatCall(model="kimi", messages=())


async def test_a_limit_that_is_forgotten_never_lives_twice() -> None:
    """A worker that looks around before a call has used all of its limits keeps them: for each there is one count."""
    book = LimitBook(read_limits("1000 requests/minute, 10 at once"), {Scope("gateway"): read_limits("12 at once")})
    leases = Leases(MemoryStore(UTC))
    limiter = Limiter(book, leases, LimiterPolicy(wait=0))
    let_in = 0
    try:
        for turn in range(40):
            try:
                await limiter.admit(CALL, ADA, "kimi-web", f"model-{turn % 4}")
                let_in += 1
            except LimitReached:
                pass
    finally:
        await leases.aclose()
    assert let_in == 10


def _ended(days_ago: float, *, charged: Usage | None = TEN, answered: bool = True, model: str = "kimi") -> CallRecord:
    """A call of Ada's that ended some days ago."""
    listed = "kimi" if model == "kimi" else "unlisted"
    return CallRecord(
        *("k_ada", listed, "up", "completed", None, None, None, None, charged, 0.0, 0.1 if answered else None),
        project="lab",
        charged=charged,
        served_model=model,
        began=time.time() - days_ago * 86_400,
    )


def _used(store: MemoryStore, text: str) -> int:
    limits = [scoped(Scope("key", "k_ada"), limit, time.time_ns() // 1_000_000, UTC) for limit in read_limits(text)]
    (state,) = store.states_of(limits)
    return state.used


def test_what_was_used_long_ago_is_kept_as_one_sum() -> None:
    """A limit without an end counts all days, and memory holds no more of them than the longest period has."""
    store = MemoryStore(UTC)
    for days_ago in range(400, -1, -1):
        store.call_ended(_ended(days_ago))
    assert _used(store, "1M tokens in total") == 401 * 20
    assert _used(store, "1M tokens/day") == 20
    days_of_month = datetime.now(UTC).day
    assert _used(store, "10k requests/month") == days_of_month
    assert len(store._used[Scope("key", "k_ada")]) < 60


def test_requests_without_tokens_count_once_they_were_answered() -> None:
    """Where there is no database, as where there is one: an image is a request, what nobody answered is none."""
    store = MemoryStore(UTC)
    store.call_ended(_ended(0, charged=None))
    store.call_ended(_ended(0, charged=None, answered=False))
    assert _used(store, "10 requests/day") == 1


def test_models_that_no_upstream_lists_count_by_their_names() -> None:
    """Metrics call them all `unlisted`; a limit for some models means what they are called."""
    store = MemoryStore(UTC)
    store.call_ended(_ended(0, model="moonshot/kimi-k9"))
    store.call_ended(_ended(0, model="moonshot/gpt-9"))
    assert _used(store, "10 requests/day for kimi*") == 1
    assert _used(store, "10 requests/day for moonshot/*") == 2


def test_clients_fill_no_memory_with_names_of_models() -> None:
    """Whoever calls ever new models at an upstream that takes any name is counted, under one name in the end."""
    store = MemoryStore(UTC)
    calls = _MOST_NAMES + 1000
    for number in range(calls):
        store.call_ended(_ended(0, model=f"any/{number}"))
    assert len(store._used[Scope("key", "k_ada")]) <= _MOST_NAMES + 2
    assert _used(store, "10k requests/day") == calls
