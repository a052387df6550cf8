"""Rows of requests take half the room: names are kept once, and the gateway's own request ids as numbers.

Writes the table anew, which takes about a minute for ten million rows, and their room once more while it lasts.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")
# By the new names of the columns, what they were.
_NAMED = {"key": "key_id", "project": "project", "provider": "provider", "dialect": "dialect"}
_KEPT = (
    *("id", "cost", "tokens_in", "tokens_out", "tokens_cached", "milliseconds", "first_milliseconds", "dropped"),
    *("status", "streamed", "estimated", "error", "request_id", "session", "end_user", "passed_over"),
)


def upgrade() -> None:
    """Apply the step."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    op.create_table(
        "name",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("text", sa.Text, nullable=False, unique=True),
        sqlite_strict=True,
    )
    op.rename_table("request", "wide_request")
    if is_postgresql:
        op.execute("ALTER INDEX request_pkey RENAME TO wide_request_pkey")
    _create_requests()
    _copy_requests()
    op.drop_table("wide_request")
    op.create_index("request_key", "request", ["key", "id"])
    for name, columns, has_value in (
        ("request_trouble", ["id"], "outcome IS NOT NULL"),
        ("request_error", ["error", "id"], "error IS NOT NULL"),
        ("request_given_id", ["request_id"], "request_id IS NOT NULL"),
    ):
        where = sa.text(has_value)
        op.create_index(name, "request", columns, sqlite_where=where, postgresql_where=where)
    if is_postgresql:
        # Rows go a little at a time, and their room has to be there for those that come: by itself PostgreSQL would
        # wait until a fifth of the table is dead.
        op.execute("ALTER TABLE request SET (autovacuum_vacuum_scale_factor = 0.01)")
        # Sums are added to all the time. Room in their page keeps the new version out of the index.
        op.execute("ALTER TABLE usage SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)")


def _create_requests() -> None:
    op.create_table(
        "request",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("request_number", _NUMBER),
        sa.Column("cost", _NUMBER, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=name == "model") for name in ("key", "project", "model")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("provider", "dialect")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("tokens_in", "tokens_out", "tokens_cached")),
        sa.Column("milliseconds", sa.Integer, nullable=False),
        sa.Column("first_milliseconds", sa.Integer),
        sa.Column("dropped", sa.Integer, nullable=False),
        *(sa.Column(name, _FLAG, nullable=False) for name in ("status", "streamed", "estimated")),
        *(sa.Column(name, sa.Text) for name in ("outcome", "error", "request_id", "asked", "served")),
        *(sa.Column(name, sa.Text) for name in ("session", "end_user", "passed_over")),
        sqlite_strict=True,
    )


def _copy_requests() -> None:
    """Carry the rows over. Models count as listed if sums were kept under their names."""
    columns = " UNION ".join(f"SELECT {column} AS text FROM wide_request" for column in _NAMED.values())  # noqa: S608
    listed = "SELECT DISTINCT model AS text FROM usage WHERE model <> 'unlisted'"
    op.execute(f"INSERT INTO name (text) SELECT text FROM ({columns} UNION {listed}) AS names ORDER BY text")  # noqa: S608
    joins = " ".join(f"JOIN name AS {new}_name ON {new}_name.text = wide_request.{old}" for new, old in _NAMED.items())
    op.execute(
        f"INSERT INTO request ({', '.join((*_KEPT, *_NAMED, 'model', 'outcome', 'asked', 'served'))}) "  # noqa: S608
        f"SELECT {', '.join(f'wide_request.{name}' for name in _KEPT)}, "
        f"{', '.join(f'{new}_name.number' for new in _NAMED)}, "
        "listed.number, "
        "CASE WHEN outcome <> 'completed' THEN outcome END, "
        "CASE WHEN served IS NOT NULL OR listed.number IS NULL THEN model END, "
        "CASE WHEN listed.number IS NULL THEN served END "
        f"FROM wide_request {joins} "
        "LEFT JOIN name AS listed ON listed.text = coalesce(wide_request.served, wide_request.model) "
        "AND listed.text IN (SELECT model FROM usage) "
        "ORDER BY wide_request.id"
    )
