"""Copies a database into another one, of the same kind or not."""

from sqlalchemy import Connection, func, insert, select, text

from app.storage.database import Database
from app.storage.schema import HEAD, migrate, version_of
from app.storage.tables import audit, changes, metadata, names

_BATCH = 1000


class MoveFault(Exception):
    """The copy can't be made; says why. The target is as it was."""


def check_movable(reading: Connection) -> None:
    """See that a database has the tables that a copy has.

    Raises:
        MoveFault: It has none, or older ones.
        SchemaError: It has newer ones.
    """
    version = version_of(reading)
    if version != HEAD:
        state = "an older schema" if version else "no tables yet"
        raise MoveFault(f"the database has {state}; run `database migrate` first")


def copy_all(source: Database, target: Database) -> dict[str, int]:
    """Copy every row, in one transaction on each side, count both, and return the counts by table.

    Raises:
        MoveFault: The source has another version of the schema, the target isn't empty, or the counts differ.
        SchemaError: One of them has a newer schema.
        DatabaseAway: One of them can't be reached.
    """
    migrate(target)
    counts: dict[str, int] = {}
    with source.transaction(reads=True, patient=True) as reading, target.transaction(patient=True) as writing:
        if not source.is_sqlite:
            # One moment for all tables. SQLite's transactions are like that anyway.
            reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        check_movable(reading)
        for table in metadata.sorted_tables:
            if writing.execute(select(func.count()).select_from(table)).scalar():
                raise MoveFault(f"the target is not empty: its table {table.name!r} has rows")
            rows = reading.execution_options(yield_per=_BATCH).execute(select(table))
            for batch in rows.mappings().partitions(_BATCH):
                writing.execute(insert(table), [dict(row) for row in batch])
            there = reading.execute(select(func.count()).select_from(table)).scalar()
            here = writing.execute(select(func.count()).select_from(table)).scalar()
            if there != here:
                raise MoveFault(f"of the table {table.name!r} {here} of {there} rows arrived")
            counts[table.name] = int(here or 0)
        if not target.is_sqlite:
            for table in (changes, names, audit):
                newest = writing.execute(select(func.max(table.c.number))).scalar()
                if newest:  # rows that were inserted with a number of their own have not moved the counter
                    writing.execute(
                        text("SELECT setval(pg_get_serial_sequence(:table, 'number'), :newest)"),
                        {"table": table.name, "newest": newest},
                    )
    return counts
