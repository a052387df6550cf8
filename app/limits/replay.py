"""Puts the calls in the ledger through limits that somebody thinks of."""

import time
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from app.domain.errors import LimitReached, QuotaSpent
from app.domain.granting import Quota, Scope
from app.domain.limits import Limit, period_at
from app.limits.trial import Trial, TrialCall
from app.storage.database import Connection
from app.storage.request_pages import RowFilter, deleted_until, scan_of_rows
from app.storage.rows import time_of
from app.storage.spent import spent_of

_MADE = ("completed", "failed", "abandoned")
_LIMIT_ERRORS = (LimitReached.code, QuotaSpent.code)


class Replay:
    """What came of a trial. `go_on` has to be called until it says that it is done.

    Args:
        scope: Whose calls.
        limits: What they are put through.
        zone: Whose calendar quotas follow.
        wait: Seconds that a call waits at most for room.
        since, until: When the calls were made, in milliseconds since the epoch.
        seconds: How long it may take from now on; then it is stopped.

    Attributes:
        refused_before: Calls that limits refused at the time.
        stopped_at: Up to where it came, in milliseconds since the epoch, if time was up; else None.
        deleted_until: From when on there are rows, if some of the time's have been deleted; else None.
    """

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        limits: Sequence[Limit],
        zone: ZoneInfo,
        wait: float,
        *,
        since: int,
        until: int,
        seconds: float,
    ) -> None:
        # What quotas had counted before is known by whole days.
        begin = period_at("day", since, zone).start if any(limit.kind == "quota" for limit in limits) else since
        used = {}
        for limit in limits:
            if limit.kind == "quota":
                start = period_at(limit.window, begin, zone).start
                used[limit] = spent_of(connection, Quota(scope, limit.measure, limit.pattern, start, begin))
        self._since = since
        self._wanted = RowFilter(
            key_id=scope.name if scope.kind == "key" else None,
            project=scope.name if scope.kind == "project" else None,
            provider=scope.name if scope.kind == "upstream" else None,
            since=begin,
            until=until,
        )
        self._deadline = time.monotonic() + seconds
        self._after = 0
        self.trial = Trial(limits, zone, begin=begin, wait=wait, used=used)
        self.refused_before = 0
        self.stopped_at: int | None = None
        self.deleted_until = deleted_until(connection, begin)

    def go_on(self, connection: Connection) -> bool:
        """Put the next part of the calls through; whether it was the last one, or time is up.

        Each part is for a transaction of its own: what else has to be read has its turn in between.
        """
        rows, after = scan_of_rows(connection, self._wanted, after=self._after)
        for row in rows:
            self._put(row)
        if after is None:
            return True
        self._after = after
        if time.monotonic() > self._deadline:
            self.stopped_at = time_of(after)
        return self.stopped_at is not None

    def _put(self, row: dict[str, Any]) -> None:
        at = time_of(row["id"])
        if row["outcome"] in _MADE:
            model = row["served"] or row["model"]
            call = TrialCall(at, row["milliseconds"], model, row["tokens_in"], row["tokens_out"], row["cost"])
            self.trial.put(call, counted=at >= self._since)
        elif row["error"] in _LIMIT_ERRORS and at >= self._since:
            self.refused_before += 1
