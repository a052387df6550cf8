"""Upstreams and routes that are added while the gateway runs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "upstream",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("secrets", sa.Text),
        sa.Column("enabled", _FLAG, nullable=False),
        *(sa.Column(name, _NUMBER, nullable=False) for name in ("position", "created_at", "changed_at")),
        sqlite_strict=True,
    )
    op.create_table(
        "route",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("targets", sa.Text, nullable=False),
        sa.Column("changed_at", _NUMBER, nullable=False),
        sqlite_strict=True,
    )
