"""Names that very many rows have in common are kept once; rows have their numbers.

For names of which there is a bounded number: of keys, projects, listed models, providers and dialects.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet

from sqlalchemy import Connection, ScalarSelect, select

from app.storage import tables
from app.storage.database import Database, insert_into

_NAMES = tables.names


def numbers_of(database: Database, connection: Connection, texts: AbstractSet[str]) -> dict[str, int]:
    """The number of each name. A name that has none yet gets one."""
    numbers = _known(connection, texts)
    if new := sorted(texts - numbers.keys()):
        # In one order everywhere, so that two workers never wait for each other crosswise.
        statement = insert_into(_NAMES, database.backend)
        connection.execute(statement.on_conflict_do_nothing(), [{"text": text} for text in new])
        numbers |= _known(connection, set(new))
    return numbers


def texts_of(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    """The name of each number."""
    rows = connection.execute(select(_NAMES.c.number, _NAMES.c.text).where(_NAMES.c.number.in_(numbers)))
    return {key: value for key, value in rows}  # noqa: C416 - rows are no pairs to mypy


def number_of_name(text: str) -> ScalarSelect[int]:
    """The number of a name, within a statement; NULL if no row has it."""
    return select(_NAMES.c.number).where(_NAMES.c.text == text).scalar_subquery()


def _known(connection: Connection, texts: AbstractSet[str]) -> dict[str, int]:
    rows = connection.execute(select(_NAMES.c.text, _NAMES.c.number).where(_NAMES.c.text.in_(texts)))
    return {key: value for key, value in rows}  # noqa: C416 - rows are no pairs to mypy
