"""What has changed, in numbered rows: caches follow them, and forget."""

from sqlalchemy import Connection, delete, func, insert, select

from app.storage import tables
from app.storage.clock import now
from app.storage.database import Database

_CHANGES = tables.changes


def newest_change(connection: Connection) -> int:
    """The number of the newest change; 0 before the first."""
    return int(connection.execute(select(func.max(_CHANGES.c.number))).scalar() or 0)


def changes_since(connection: Connection, number: int) -> tuple[int, list[str] | None]:
    """The number of the newest change, and what has changed since `number`; None if that is no longer known."""
    oldest, newest = connection.execute(select(func.min(_CHANGES.c.number), func.max(_CHANGES.c.number))).one()
    newest = int(newest or 0)
    if newest < number:
        return newest, None  # an older copy of the database, or another one
    if newest == number:
        return number, []
    if oldest > number + 1:
        return newest, None
    rows = connection.execute(select(_CHANGES.c.subject).where(_CHANGES.c.number > number))
    return newest, list(rows.scalars())


def forget_changes(connection: Connection, before: int) -> None:
    """Delete changes from before a time, but for the newest one, which keeps the count."""
    newest = select(func.max(_CHANGES.c.number)).scalar_subquery()
    connection.execute(delete(_CHANGES).where(_CHANGES.c.at < before, _CHANGES.c.number < newest))


def note_change(database: Database, connection: Connection, subject: str) -> None:
    """Tell all workers that something is changed in this transaction.

    It comes before the change itself, or `hold_back_writers` does: of two who take that lock and the same rows in
    another order, each would wait for the other.
    """
    # A worker asks for what came after the newest number that it has seen: a lower one must not appear later.
    database.hold_back_writers(connection)
    connection.execute(insert(_CHANGES).values(subject=subject, at=now()))
