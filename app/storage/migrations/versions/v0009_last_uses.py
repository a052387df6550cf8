"""When each secret of a key was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.add_column("key_secret", sa.Column("last_used_at", _NUMBER))
