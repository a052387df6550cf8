"""What limits calls: shared by all workers with a database, this worker's alone without one."""

from collections.abc import Callable

from msgspec import Struct

from app.domain.limits import read_limits
from app.domain.usage import CallRecord
from app.limits.book import LimitBook
from app.limits.leases import Leases
from app.limits.limiter import Limiter, LimiterPolicy
from app.limits.store import MemoryStore
from app.observe.metrics import Metrics
from app.settings.limits import LimitSettings


class Limits(Struct, frozen=True):
    """What limits calls.

    Args:
        on_call: Take the records of calls, where no ledger does.
    """

    limiter: Limiter
    leases: Leases
    on_call: tuple[Callable[[CallRecord], None], ...] = ()

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
    leases = Leases(store)
    limiter = Limiter(book_of(settings), leases, policy_of(settings), on_refusal=metrics.limit_refused)
    return Limits(limiter, leases, (store.call_ended,))
