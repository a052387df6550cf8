"""Limits: their texts, what is left of them, who holds how much, and what quotas count.

What was used until now counts for quotas, too: by days of UTC, and without calls that broke off.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_FLAG = sa.SmallInteger().with_variant(sa.Integer, "sqlite")
_REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL, "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "limits",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("changed_at", _NUMBER, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "bucket",
        sa.Column("limit_id", sa.Text, primary_key=True),
        sa.Column("amount", _NUMBER, nullable=False),
        sa.Column("tokens", _REAL, nullable=False),
        sa.Column("at", _NUMBER, nullable=False),
        sa.Column("wanted_at", _NUMBER, nullable=False),
        sa.Column("held", _NUMBER, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("bucket_wanted", "bucket", ["wanted_at"])
    op.create_table(
        "lease",
        sa.Column("limit_id", sa.Text, primary_key=True),
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("held", _NUMBER, nullable=False),
        sa.Column("is_quota", _FLAG, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("lease_worker", "lease", ["worker"])
    op.create_table(
        "worker",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("machine", "version")),
        *(sa.Column(name, _NUMBER, nullable=False) for name in ("started_at", "seen_at", "beat", "message")),
        sqlite_strict=True,
    )
    op.create_table(
        "boot",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("base", _NUMBER, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "spent",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("day", _NUMBER, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        *(sa.Column(name, _NUMBER, nullable=False) for name in ("requests", "tokens_in", "tokens_out", "cost")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    _count_what_was_used()


def _count_what_was_used() -> None:
    projects = (
        "coalesce((SELECT project.name FROM api_key JOIN project ON project.id = api_key.project_id "
        "WHERE api_key.id = usage.key_id), 'environment')"
    )
    for scope, where in (
        ("'key:' || key_id", "key_id <> ''"),
        (f"'project:' || {projects}", "key_id <> ''"),
        ("'gateway:'", "key_id = ''"),
    ):
        op.execute(
            "INSERT INTO spent (scope, day, model, provider, requests, tokens_in, tokens_out, cost) "  # noqa: S608
            "SELECT of_scope, start, model, provider, sum(requests), sum(tokens_in), sum(tokens_out), sum(cost) "
            f"FROM (SELECT {scope} AS of_scope, start, model, provider, "
            "CASE WHEN outcome = 'completed' THEN requests ELSE 0 END AS requests, tokens_in, tokens_out, cost "
            f"FROM usage WHERE grain = 'day' AND {where} AND tokens_in + tokens_out > 0) AS used "
            "GROUP BY of_scope, start, model, provider"
        )
