"""The tables, as statements use them. Migrations make them, and say how they came about.

Times are milliseconds since the epoch (UTC), money is in nano-dollars, sets and lists are JSON.
"""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, SmallInteger, Table, Text, text

metadata = MetaData()
# STRICT tables of SQLite know no BIGINT; its INTEGER has 64 bits as well.
Number = BigInteger().with_variant(Integer, "sqlite")
Flag = SmallInteger().with_variant(Integer, "sqlite")

projects = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Number, nullable=False),
    sqlite_strict=True,
)

keys = Table(
    "api_key",
    metadata,
    # Also the id of its caller: sessions, logs and the ledger survive a new secret.
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("models", Text),  # patterns; NULL for all
    Column("note", Text, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("paused_at", Number),
    Column("revoked_at", Number),
    sqlite_strict=True,
)
Index(
    "api_key_name",
    keys.c.project_id,
    keys.c.name,
    unique=True,
    sqlite_where=text("revoked_at IS NULL"),
    postgresql_where=text("revoked_at IS NULL"),
)

secrets = Table(
    "key_secret",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 in hex
    Column("key_id", Text, ForeignKey("api_key.id"), nullable=False, index=True),
    Column("hint", Text, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("valid_until", Number),  # NULL for the newest one
    sqlite_strict=True,
)

changes = Table(
    "change",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),
    Column("at", Number, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

journals = Table(
    "journal",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "number", Number, unique=True
    ),  # in the ids of its requests; NULL once everything in it has been carried over
    Column("position", Number, nullable=False),
    Column("at", Number, nullable=False),
    sqlite_strict=True,
)

requests = Table(
    "request",
    metadata,
    # 41 bits of milliseconds, 10 of the journal's number, 12 of a counter: in the order of time.
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("request_id", Text, nullable=False),  # "" if it is one of ours: then its number is below
    Column("key_id", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("served", Text),  # NULL if it is the model that was asked for
    Column("provider", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text),
    Column("status", Integer, nullable=False),
    Column("streamed", Flag, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("estimated", Flag, nullable=False),
    Column("cost", Number, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("first_milliseconds", Integer),
    Column("session", Text),
    Column("end_user", Text),
    Column("dropped", Integer, nullable=False),
    Column("passed_over", Text),
    Column("request_number", Number),
    sqlite_strict=True,
)
Index("request_key", requests.c.key_id, requests.c.id)
Index(
    "request_trouble",
    requests.c.id,
    sqlite_where=text("outcome <> 'completed'"),
    postgresql_where=text("outcome <> 'completed'"),
)
Index(
    "request_given_id",
    requests.c.request_id,
    sqlite_where=text("request_id <> ''"),
    postgresql_where=text("request_id <> ''"),
)
Index(
    "request_error",
    requests.c.error,
    requests.c.id,
    sqlite_where=text("error IS NOT NULL"),
    postgresql_where=text("error IS NOT NULL"),
)

# Classes of duration, by their upper bounds in milliseconds: with them p50 and p95 of any sum of rows can be estimated.
DURATIONS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 180_000)

usage = Table(
    "usage",
    metadata,
    Column("grain", Text, primary_key=True),  # "hour" or "day"
    Column("key_id", Text, primary_key=True),  # "" for all keys together
    Column("start", Number, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("requests", Number, nullable=False),
    Column("tokens_in", Number, nullable=False),
    Column("tokens_out", Number, nullable=False),
    Column("tokens_cached", Number, nullable=False),
    Column("cost", Number, nullable=False),
    Column("milliseconds", Number, nullable=False),
    *[Column(f"m{place}", Number, nullable=False) for place in range(len(DURATIONS) + 1)],
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

prices = Table(
    "price",
    metadata,
    Column("model", Text, primary_key=True),
    Column("since", Number, primary_key=True),
    # Nano-dollars for a token.
    Column("input", Number, nullable=False),
    Column("output", Number, nullable=False),
    Column("cached", Number, nullable=False),
    sqlite_strict=True,
)
