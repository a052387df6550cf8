"""What limits would have refused of the calls in the ledger."""

import time
from collections.abc import Sequence
from typing import Any

from app.domain.errors import LimitReached, QuotaSpent
from app.domain.granting import Quota, Scope
from app.domain.limits import Limit, period_at
from app.limits.limiter import LimiterPolicy
from app.limits.trial import Trial, TrialCall
from app.storage.database import Connection
from app.storage.request_pages import RowFilter, deleted_until, scan_of_rows
from app.storage.rows import time_of
from app.storage.spent import spent_of

_MADE = ("completed", "failed", "abandoned")
_LIMIT_ERRORS = (LimitReached.code, QuotaSpent.code)


class Replay:
    """Reads the calls of a time and puts them through limits: first `begin`, then `step` as long as `goes_on`.

    Each is one transaction's work, so that nothing else has to wait for all of it.

    Args:
        scope: Whose limits, and so whose calls.
        policy: How long calls wait, and whose calendar quotas follow.
        since, until: The time, in milliseconds since the epoch.
        seconds: After which it stops before its end.

    Attributes:
        trial: What came of it; of its limits as `begin` made them.
        refused_before: Calls that limits refused at the time.
        stopped_at: Up to where it came, in milliseconds since the epoch, if it took too long; else None.
        deleted_until: From when on there are rows, if some of the time's have been deleted; else None.
        goes_on: Whether there may be more calls.
    """

    def __init__(
        self, scope: Scope, limits: Sequence[Limit], policy: LimiterPolicy, *, since: int, until: int, seconds: float
    ) -> None:
        self._scope = scope
        self._limits = limits
        self._policy = policy
        self._since = since
        # What quotas had counted before is known by whole days.
        has_quota = any(limit.kind == "quota" for limit in limits)
        self._begin = period_at("day", since, policy.zone).start if has_quota else since
        self._wanted = RowFilter(
            key_id=scope.name if scope.kind == "key" else None,
            project=scope.name if scope.kind == "project" else None,
            provider=scope.name if scope.kind == "upstream" else None,
            since=self._begin,
            until=until,
        )
        self._after = 0
        self._deadline = time.monotonic() + seconds
        self.trial = Trial(limits, policy.zone, begin=self._begin, wait=policy.wait)
        self.refused_before = 0
        self.stopped_at: int | None = None
        self.deleted_until: int | None = None
        self.goes_on = True

    def begin(self, connection: Connection) -> None:
        """Read what was used before."""
        zone, used = self._policy.zone, {}
        for limit in self._limits:
            if limit.kind == "quota":
                start = period_at(limit.window, self._begin, zone).start
                used[limit] = spent_of(connection, Quota(self._scope, limit.measure, limit.pattern, start, self._begin))
        self.trial = Trial(self._limits, zone, begin=self._begin, wait=self._policy.wait, used=used)
        self.deleted_until = deleted_until(connection, self._begin)

    def step(self, connection: Connection) -> None:
        """Put a part of the calls through."""
        rows, after = scan_of_rows(connection, self._wanted, after=self._after)
        for row in rows:
            self._put(row)
        self.goes_on = after is not None
        if after is not None:
            self._after = after
            if time.monotonic() > self._deadline:
                self.stopped_at = time_of(after)
                self.goes_on = False

    def _put(self, row: dict[str, Any]) -> None:
        at = time_of(row["id"])
        if row["outcome"] in _MADE:
            call = TrialCall(
                at, row["milliseconds"], row["served"] or row["model"], row["tokens_in"], row["tokens_out"], row["cost"]
            )
            self.trial.put(call, counted=at >= self._since)
        elif row["error"] in _LIMIT_ERRORS and at >= self._since:
            self.refused_before += 1
