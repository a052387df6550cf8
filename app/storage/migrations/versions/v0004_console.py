"""What the admin API and the console need: an audit log, repeated requests, people, logins and tickets."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _texts(*names: str, optional: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=optional) for name in names]


def _numbers(*names: str, optional: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, _NUMBER, nullable=optional) for name in names]


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "audit",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        *_numbers("at"),
        *_texts("actor", "via", "action", "subject"),
        *_texts("before", "after", "address", optional=True),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("audit_subject", "audit", ["subject", "number"])
    op.create_table(
        "repeated",
        sa.Column("key", sa.Text, primary_key=True),
        *_texts("fingerprint", "answer"),
        *_numbers("expires_at"),
        sqlite_strict=True,
    )
    op.create_table(
        "person",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        *_texts("role"),
        *_texts("password", optional=True),
        *_numbers("created_at"),
        *_numbers("disabled_at", optional=True),
        sqlite_strict=True,
    )
    op.create_table(
        "login",
        sa.Column("digest", sa.Text, primary_key=True),
        *_texts("person_id", "key_id", optional=True),
        *_texts("csrf"),
        *_numbers("created_at", "seen_at", "expires_at"),
        *_texts("agent"),
        sqlite_strict=True,
    )
    op.create_index("login_person", "login", ["person_id"])
    op.create_index("login_key", "login", ["key_id"])
    op.create_table(
        "ticket",
        sa.Column("digest", sa.Text, primary_key=True),
        *_texts("person_id"),
        *_numbers("expires_at"),
        sqlite_strict=True,
    )
