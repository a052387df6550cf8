"""The ledger's rows as they come. A row's place is when its call began, but it comes when the call has ended."""

from collections.abc import Iterable
from typing import Any

from app.storage.clock import now
from app.storage.database import Connection
from app.storage.request_pages import RowFilter, end_of, page_of_rows, slow_rows
from app.storage.rows import id_at

# So far back is looked each time, and every few times further back, for calls that took longer.
_USUAL_MILLISECONDS, LONG_MILLISECONDS = 15_000, 600_000
_TIMES_UNTIL_LONG = 5
# More in a second than anybody can read.
MOST_AT_ONCE = 500

Row = dict[str, Any]


class NewRows:
    """Finds what has come since it last looked, for as long as somebody looks every second or so."""

    def __init__(self) -> None:
        self._known: dict[int, None] = {}
        self._times = 0

    def look(self, connection: Connection) -> list[Row]:
        """The rows among which there may be new ones."""
        is_deep = self._times % _TIMES_UNTIL_LONG == 0
        return _newest_and_slow(connection) if is_deep else _newest(connection)

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """The new ones of what was found, in the order in which the calls ended; they aren't new any more then."""
        fresh = {row["id"]: row for row in rows if row["id"] not in self._known}
        # What was seen before stays known until it is too old to be read again.
        oldest = id_at(now() - 2 * LONG_MILLISECONDS)
        self._known = {row_id: None for row_id in self._known if row_id >= oldest} | dict.fromkeys(fresh)
        self._times += 1
        return sorted(fresh.values(), key=end_of)


def fits(row: Row, wanted: RowFilter) -> bool:
    """Whether a row is one of those that are looked for, whenever it was."""
    given = {
        "key_id": wanted.key_id,
        "project": wanted.project,
        "provider": wanted.provider,
        "outcome": wanted.outcome,
        "error": wanted.error,
        "session": wanted.session,
    }
    if any(value is not None and row[name] != value for name, value in given.items()):
        return False
    if wanted.model is not None and wanted.model != (row["served"] or row["model"]):
        return False
    return not wanted.trouble or row["outcome"] not in ("completed", "replayed")


def _newest(connection: Connection) -> list[Row]:
    return page_of_rows(connection, RowFilter(since=now() - _USUAL_MILLISECONDS), limit=MOST_AT_ONCE).rows


def _newest_and_slow(connection: Connection) -> list[Row]:
    time = now()
    slow = slow_rows(
        connection,
        since=time - LONG_MILLISECONDS,
        until=time - _USUAL_MILLISECONDS + 1,
        at_least=_USUAL_MILLISECONDS // 2,
        limit=MOST_AT_ONCE,
    )
    return [*_newest(connection), *slow]
