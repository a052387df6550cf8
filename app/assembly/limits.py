"""What limits calls: shared by all workers with a database, this worker's alone without one."""

from collections.abc import Callable, Sequence

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


def limits_in_memory(settings: LimitSettings, metrics: Metrics) -> Limits | None:
    """Limits without a database, of this worker alone; None if the settings have none."""
    if not read_limits(settings.default) and not any(settings.fixed.values()):
        return None
    store = MemoryStore(settings.zone)
    book, leases = book_of(settings), Leases(store)
    limiter = Limiter(book, leases, policy_of(settings), on_refusal=metrics.limit_refused)
    return Limits(limiter, leases, Overview(book, leases, settings.zone), store, (store.call_ended,))
