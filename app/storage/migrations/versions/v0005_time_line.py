"""Rows of requests say what a call waited for, what it meant for its session, and how large its prompt was.

Nothing is written anew: of the rows that are there, none of it is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    for column in (
        sa.Column("action", sa.Integer),
        sa.Column("prompt_size", sa.Integer),
        sa.Column("prompt_limit", sa.Integer),
        sa.Column("prompt_in_tokens", _FLAG),
        sa.Column("shortened", sa.Integer),
        sa.Column("waits", sa.Text),
    ):
        op.add_column("request", column)
