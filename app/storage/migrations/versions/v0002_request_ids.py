"""The gateway's own request ids as numbers; indexes for finding a request by a client's id, or by its error.

Nothing is written anew: with ten million rows it takes seconds. Ids that the gateway gave before stay as they are, and
are found like those that clients give.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.add_column("request", sa.Column("request_number", _NUMBER, nullable=True))
    given = sa.text("request_id <> ''")
    op.create_index("request_given_id", "request", ["request_id"], sqlite_where=given, postgresql_where=given)
    has_error = sa.text("error IS NOT NULL")
    op.create_index("request_error", "request", ["error", "id"], sqlite_where=has_error, postgresql_where=has_error)
    if op.get_context().dialect.name == "postgresql":
        # Rows go a little at a time, and their room has to be there for those that come: by itself PostgreSQL would
        # wait until a fifth of the table is dead.
        op.execute(
            "ALTER TABLE request SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02)"
        )
        # Sums are added to all the time: room in their page keeps the new version out of the index.
        op.execute("ALTER TABLE usage SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)")
