"""Recordings of keys, and the texts that were recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "recording",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("started_at", _NUMBER, nullable=False),
        sa.Column("until", _NUMBER, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.Column("size", _NUMBER, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "recorded_text",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=False),
        *[sa.Column(name, _NUMBER, nullable=False) for name in ("at", "ended_at", "size")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("key_id", "request_id", "cut", "asked")],
        sa.Column("sent", sa.Text),
        sa.Column("answered", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    for name in ("request_id", "key_id", "ended_at"):
        op.create_index(f"recorded_{name}", "recorded_text", [name])
