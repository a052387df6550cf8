"""The tables, as statements use them. Migrations make them, and say how they came about. Indexes with conditions are in
`partial_indexes`.

Times are milliseconds since the epoch (UTC), money is in nano-dollars, sets and lists are JSON.
"""

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

from app.domain.units import UNITS, Unit

metadata = MetaData()
# STRICT tables of SQLite know no BIGINT; its INTEGER has 64 bits as well.
Number = BigInteger().with_variant(Integer, "sqlite")
Real: TypeEngine[float] = Double().with_variant(REAL, "sqlite")
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
secrets = Table(
    "key_secret",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 in hex
    Column("key_id", Text, ForeignKey("api_key.id"), nullable=False, index=True),
    Column("hint", Text, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("valid_until", Number),  # NULL for the newest one
    Column("last_used_at", Number),  # to the minute; NULL if it isn't known
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

# Names that very many requests have in common.
names = Table(
    "name",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("text", Text, nullable=False, unique=True),
    sqlite_strict=True,
)

# The columns' order matters to PostgreSQL, which pads them: the wide ones first.
requests = Table(
    "request",
    metadata,
    # 41 bits of milliseconds, 10 of the journal's number, 12 of a counter: in the order of time.
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("request_number", Number),  # what an id of ours is made from; NULL for a client's
    Column("cost", Number, nullable=False),
    # Numbers of names.
    Column("key", Integer, nullable=False),
    Column("project", Integer, nullable=False),
    Column("model", Integer),  # the one that answered; NULL if it isn't listed
    Column("provider", Integer, nullable=False),
    Column("dialect", Integer, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("first_milliseconds", Integer),
    Column("dropped", Integer, nullable=False),
    Column("status", Flag, nullable=False),
    Column("streamed", Flag, nullable=False),
    Column("estimated", Flag, nullable=False),
    Column("outcome", Text),  # NULL for `completed`
    Column("error", Text),
    Column("request_id", Text),  # NULL for one of ours
    Column("asked", Text),  # the model that was asked for; NULL if it is the one that answered, and that is listed
    Column("served", Text),  # the model that answered; NULL if it is listed, or the one that was asked for
    Column("session", Text),
    Column("end_user", Text),
    Column("passed_over", Text),
    # Unknown of rows that are older than these columns.
    Column("action", Integer),  # the number of a name
    Column("prompt_size", Integer),
    Column("prompt_limit", Integer),
    Column("prompt_in_tokens", Flag),
    Column("shortened", Integer),  # NULL for none
    Column("waits", Text),  # NULL for none
    Column("tokens_cache_written", Integer),  # NULL for none
    Column("unit", Flag),  # of what was used besides tokens (`app.domain.units`); NULL for nothing
    Column("amount", Integer),  # how much of it
    sqlite_strict=True,
)
Index("request_key", requests.c.key, requests.c.id)

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
    # With defaults, for gateways that don't know them.
    *[Column(name, Number, nullable=False, server_default="0") for name in (*UNITS, "tokens_cache_written")],
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# By unit: the column that says what one of it costs.
PRICES_OF: dict[Unit, str] = {
    "images": "image",
    "audio_seconds": "audio_second",
    "characters": "character",
    "searches": "search",
}

prices = Table(
    "price",
    metadata,
    Column("model", Text, primary_key=True),
    Column("since", Number, primary_key=True),
    # Nano-dollars for a token.
    Column("input", Number, nullable=False),
    Column("output", Number, nullable=False),
    Column("cached", Number, nullable=False),
    # Nano-dollars for one, with defaults for gateways that don't know them.
    *[Column(name, Number, nullable=False, server_default="0") for name in PRICES_OF.values()],
    Column("cache_write", Number),  # for a token, like those above; NULL if it costs what `input` says
    sqlite_strict=True,
)

# Limits, by what they are of: `key:ID`, `project:NAME`, `upstream:NAME` or `gateway:`. As people write them.
limits = Table(
    "limits",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("limits", Text, nullable=False),
    Column("changed_at", Number, nullable=False),
    sqlite_strict=True,
)

# What is left of a limit. Its times are of the clock that all workers share (`app.storage.limits`).
buckets = Table(
    "bucket",
    metadata,
    Column("limit_id", Text, primary_key=True),
    Column("amount", Number, nullable=False),
    Column("tokens", Real, nullable=False),
    Column("at", Number, nullable=False),
    Column("wanted_at", Number, nullable=False),
    Column("held", Number, nullable=False),
    sqlite_strict=True,
)
Index("bucket_wanted", buckets.c.wanted_at)

leases = Table(
    "lease",
    metadata,
    Column("limit_id", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("held", Number, nullable=False),
    Column("is_quota", Flag, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
Index("lease_worker", leases.c.worker)

workers = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("machine", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
    Column("beat", Number, nullable=False),  # of the shared clock
    Column("message", Number, nullable=False),
    sqlite_strict=True,
)

# What that clock has to add to the time since this machine was started.
boots = Table(
    "boot",
    metadata,
    Column("id", Text, primary_key=True),
    Column("base", Number, nullable=False),
    sqlite_strict=True,
)

# What quotas count: use by day of the calendar of TIME_ZONE, written together with the requests.
spent = Table(
    "spent",
    metadata,
    Column("scope", Text, primary_key=True),  # as in `limits`
    Column("day", Number, primary_key=True),  # its beginning
    Column("model", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("requests", Number, nullable=False),
    Column("tokens_in", Number, nullable=False),
    Column("tokens_out", Number, nullable=False),
    Column("cost", Number, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Who has changed what. `before` and `after` are JSON objects without secrets.
audit = Table(
    "audit",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", Number, nullable=False),
    Column("actor", Text, nullable=False),
    Column("via", Text, nullable=False),  # "api", "console" or "cli"
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("address", Text),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("audit_subject", audit.c.subject, audit.c.number)

# Answers to requests with an Idempotency-Key, without the secrets that they had.
repeated = Table(
    "repeated",
    metadata,
    Column("key", Text, primary_key=True),  # together with whose it is, as a digest
    Column("fingerprint", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("expires_at", Number, nullable=False),
    sqlite_strict=True,
)

# Who signs in to the console without a key.
people = Table(
    "person",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),  # "admin" or "viewer"
    Column("password", Text),  # as scrypt has hashed it; NULL for links only
    Column("created_at", Number, nullable=False),
    Column("disabled_at", Number),
    sqlite_strict=True,
)

# Signed in: of a person, or of a key's holder.
logins = Table(
    "login",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the cookie, in hex
    Column("person_id", Text),
    Column("key_id", Text),
    Column("csrf", Text, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
    Column("expires_at", Number, nullable=False),
    Column("agent", Text, nullable=False),
    sqlite_strict=True,
)
Index("login_person", logins.c.person_id)
Index("login_key", logins.c.key_id)

# Links that open the console once.
tickets = Table(
    "ticket",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("person_id", Text, nullable=False),
    Column("expires_at", Number, nullable=False),
    sqlite_strict=True,
)

# Whose texts are kept, until when. A row outlives its recording by as long as there may be texts of it.
recordings = Table(
    "recording",
    metadata,
    Column("key_id", Text, primary_key=True),  # of the database or of API_MASTER_KEY
    Column("started_at", Number, nullable=False),
    Column("until", Number, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("size", Number, nullable=False),  # of the key's texts, in bytes
    sqlite_strict=True,
)

# What was said in calls while their keys were recorded. The large columns come last.
recorded_texts = Table(
    "recorded_text",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("at", Number, nullable=False),  # when the call began, as in its row of the ledger
    Column("ended_at", Number, nullable=False),
    Column("size", Number, nullable=False),  # of all its texts, in bytes
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("cut", Text, nullable=False),  # which of the following were cut, with commas between them
    Column("asked", Text, nullable=False),  # the request, as JSON; in words if it can't be asked again
    Column("sent", Text),  # NULL if no upstream was asked
    Column("answered", Text, nullable=False),
    sqlite_strict=True,
)
Index("recorded_request_id", recorded_texts.c.request_id)
Index("recorded_key_id", recorded_texts.c.key_id)
Index("recorded_ended_at", recorded_texts.c.ended_at)
# Upstreams that were added while the gateway ran.
upstreams = Table(
    "upstream",
    metadata,
    Column("name", Text, primary_key=True),
    Column("entry", Text, nullable=False),  # JSON, in the words of PROVIDERS_FILE, without what is secret
    Column("secrets", Text),  # encrypted; NULL for none
    Column("enabled", Flag, nullable=False),
    Column("position", Number, nullable=False),  # those of equal names come first that have the lower one
    Column("created_at", Number, nullable=False),
    Column("changed_at", Number, nullable=False),
    sqlite_strict=True,
)

# The same for routes.
routes = Table(
    "route",
    metadata,
    Column("name", Text, primary_key=True),
    Column("targets", Text, nullable=False),  # JSON: a list in order, or an object with weights
    Column("changed_at", Number, nullable=False),
    sqlite_strict=True,
)
