"""What limits calls: shared by all workers with a database, this worker's alone without one."""

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches

import structlog
from msgspec import Struct

from app.domain.caller import Caller
from app.domain.limits import read_limits
from app.domain.usage import CallRecord
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.overview import LimitUse, Overview
from app.limits.store import MemoryStore
from app.observe.metrics import Metrics
from app.settings.limits import LimitSettings


class Limits(Struct, frozen=True):
    """What limits calls.

    Args:
        store: This worker's own, where no database is shared.
        on_call: Take the records of calls, where no ledger does.
    """

    limiter: Limiter
    leases: Leases
    overview: Overview
    store: MemoryStore | None = None
    on_call: tuple[Callable[[CallRecord], None], ...] = ()

    def uses(self, caller: Caller) -> Sequence[LimitUse]:
        """How a caller stands, where no database is shared."""
        if self.store is None:
            return ()
        limits = self.overview.limits_of(caller)
        return self.overview.uses(limits, self.store.states_of(limits))

    def state(self) -> dict[str, dict[str, float]]:
        """The numbers of the moment, for the metrics."""
        return {"kimi_limits_shared": {"limits": float(not self.leases.is_away)}}


def policy_of(settings: LimitSettings) -> LimiterPolicy:
    """How limits are applied."""
    return LimiterPolicy(wait=settings.wait, zone=settings.zone, without_store=settings.without_database)


def book_of(settings: LimitSettings) -> LimitBook:
    """The limits that hold as long as no database has others."""
    return LimitBook(read_limits(settings.default), settings.fixed)


def unknown_upstreams(settings: LimitSettings, names: Collection[str]) -> dict[str, str]:
    """The names in UPSTREAM_LIMITS that no upstream has, each with the most similar one that does; empty for none.

    That is no error: upstreams may be added while the gateway runs.

    Args:
        names: Of all upstreams.
    """
    limited = [scope.name for scope in settings.fixed if scope.kind == "upstream"]
    return {name: next(iter(get_close_matches(name, names, 1)), "") for name in limited if name not in names}


def warn_of_unknown_upstreams(settings: LimitSettings, names: Collection[str]) -> None:
    """Tell the log of limits that limit nothing."""
    for name, nearest in unknown_upstreams(settings, names).items():
        structlog.get_logger("kimi.assembly").warning(
            "unknown_upstream",
            setting="UPSTREAM_LIMITS",
            name=name,
            nearest=nearest or None,
            meaning="no upstream has this name, or it is disabled: its limits limit nothing as long as that is so",
        )


def limits_in_memory(settings: LimitSettings, metrics: Metrics) -> Limits | None:
    """Limits without a database, of this worker alone; None if the settings have none."""
    if not read_limits(settings.default) and not any(settings.fixed.values()):
        return None
    store = MemoryStore(settings.zone)
    book, leases = book_of(settings), Leases(store)
    limiter = Limiter(book, leases, policy_of(settings), on_refusal=metrics.limit_refused)
    return Limits(limiter, leases, Overview(book, leases, settings.zone), store, (store.call_ended,))
