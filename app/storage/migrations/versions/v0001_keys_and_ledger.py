"""Keys, and the ledger of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")
_DURATIONS = 12


def _text(name: str, *, optional: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=optional)


def _number(name: str, *, optional: bool = False) -> sa.Column[int]:
    return sa.Column(name, _NUMBER, nullable=optional)


def _small(name: str, *, optional: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=optional)


def _flag(name: str) -> sa.Column[int]:
    return sa.Column(name, _FLAG, nullable=False)


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "project",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        _number("created_at"),
        sqlite_strict=True,
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("project.id"), nullable=False),
        *(_text(name) for name in ("name", "scopes")),
        _text("models", optional=True),
        _text("note"),
        _number("created_at"),
        *(_number(name, optional=True) for name in ("expires_at", "paused_at", "revoked_at")),
        sqlite_strict=True,
    )
    alive = sa.text("revoked_at IS NULL")
    op.create_index(
        "api_key_name", "api_key", ["project_id", "name"], unique=True, sqlite_where=alive, postgresql_where=alive
    )
    op.create_table(
        "key_secret",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, sa.ForeignKey("api_key.id"), nullable=False, index=True),
        _text("hint"),
        _number("created_at"),
        _number("valid_until", optional=True),
        sqlite_strict=True,
    )
    op.create_table(
        "change",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        _text("subject"),
        _number("at"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "journal",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", _NUMBER, nullable=True, unique=True),
        _number("position"),
        _number("at"),
        sqlite_strict=True,
    )
    _create_requests()
    op.create_table(
        "usage",
        *(
            sa.Column(name, kind, primary_key=True)
            for name, kind in (
                ("grain", sa.Text),
                ("key_id", sa.Text),
                ("start", _NUMBER),
                ("model", sa.Text),
                ("provider", sa.Text),
                ("outcome", sa.Text),
            )
        ),
        *map(_number, ("requests", "tokens_in", "tokens_out", "tokens_cached", "cost", "milliseconds")),
        *(_number(f"m{place}") for place in range(_DURATIONS)),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "price",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("since", _NUMBER, primary_key=True),
        *map(_number, ("input", "output", "cached")),
        sqlite_strict=True,
    )


def _create_requests() -> None:
    op.create_table(
        "request",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=False),
        *map(_text, ("request_id", "key_id", "project", "model")),
        _text("served", optional=True),
        *map(_text, ("provider", "dialect", "outcome")),
        _text("error", optional=True),
        _small("status"),
        _flag("streamed"),
        *map(_small, ("tokens_in", "tokens_out", "tokens_cached")),
        _flag("estimated"),
        _number("cost"),
        _small("milliseconds"),
        _small("first_milliseconds", optional=True),
        *(_text(name, optional=True) for name in ("session", "end_user")),
        _small("dropped"),
        _text("passed_over", optional=True),
        sqlite_strict=True,
    )
    op.create_index("request_key", "request", ["key_id", "id"])
    trouble = sa.text("outcome <> 'completed'")
    op.create_index("request_trouble", "request", ["id"], sqlite_where=trouble, postgresql_where=trouble)
