"""The ledger counts images, seconds of audio, characters and searches, and tokens that were written into a cache.

Nothing is written anew: of the rows and sums that are there, none of it is known. What is new in them has defaults, so
that older workers can go on writing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    for name in ("image", "audio_second", "character", "search"):
        op.add_column("price", sa.Column(name, _NUMBER, nullable=False, server_default="0"))
    op.add_column("price", sa.Column("cache_write", _NUMBER))
    for name in ("images", "audio_seconds", "characters", "searches", "tokens_cache_written"):
        op.add_column("usage", sa.Column(name, _NUMBER, nullable=False, server_default="0"))
    for column in (
        sa.Column("tokens_cache_written", sa.Integer),
        sa.Column("unit", _FLAG),
        sa.Column("amount", sa.Integer),
    ):
        op.add_column("request", column)
