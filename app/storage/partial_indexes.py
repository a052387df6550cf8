"""The indexes that have conditions, which no statement needs to know.

Apart from the tables: to say them loads the dialects of both databases, and PostgreSQL's alone takes 3 MB.
"""

from sqlalchemy import Index, text

from app.storage.tables import keys, requests

_INDEXES = (
    ("api_key_name", (keys.c.project_id, keys.c.name), "revoked_at IS NULL"),
    ("request_trouble", (requests.c.id,), "outcome IS NOT NULL"),
    ("request_error", (requests.c.error, requests.c.id), "error IS NOT NULL"),
    ("request_given_id", (requests.c.request_id,), "request_id IS NOT NULL"),
)


def add_partial_indexes() -> None:
    """Add them to the tables' metadata, once, for whoever compares it with a database."""
    known = {index.name for table in (keys, requests) for index in table.indexes}
    for name, columns, condition in _INDEXES:
        if name not in known:
            where = text(condition)
            Index(name, *columns, unique=name == "api_key_name", sqlite_where=where, postgresql_where=where)
