"""The database of keys and of what was used."""

from pathlib import Path
from typing import Annotated

from pydantic import SecretStr, field_validator

from app.settings.group import Accepts, Seconds, SettingsGroup, Unit, setting

Days = Annotated[float, Unit("days")]
Megabytes = Annotated[float, Unit("MB")]

_SCHEMES = ("sqlite://", "postgresql://", "postgres://", "postgresql+psycopg://")


class DatabaseSettings(SettingsGroup):
    """Keys and ledger.

    The database of the keys that are given out with `main.py keys`, and of the calls made with them.
    """

    url: Annotated[SecretStr, Accepts("a sqlite:// or postgresql:// address, or `none`")] = setting(
        "DATABASE_URL",
        "sqlite:///data/gateway.db",
        "Where keys and the ledger are kept. `sqlite:///data/gateway.db` is a file on this machine, made at the first "
        "start, which all its workers share. `postgresql://user:password@host:5432/name` is for several machines; "
        "without a password in it, libpq's `PGPASSWORD` or password file is used. "
        "`none` switches both off: then there are only the keys of `API_MASTER_KEY`.",
    )
    known_for: Seconds = setting(
        "KEYS_WITHOUT_DATABASE_SECONDS",
        3600,
        "How long keys that a worker has seen go on opening while the database is away.",
        ge=0,
    )
    journal: Path = setting(
        "JOURNAL_DIR",
        "data/journal",
        "A folder on a disk of this machine, where finished calls wait for the database.",
    )
    journal_max: Megabytes = setting(
        "JOURNAL_MAX_MB",
        1024,
        "How large the journal of one worker may become while the database is away. What comes after that is lost, "
        "and counted.",
        ge=16,
    )
    requests_kept: Days = setting(
        "REQUESTS_KEPT_DAYS",
        30,
        "How long the ledger keeps a row for each call. Sums are kept for ever, but for those of single keys by hour.",
        ge=0,
    )
    max_size: Megabytes = setting(
        "DATABASE_MAX_MB", 4096, "How large the database may become; beyond that the oldest rows go first.", ge=16
    )

    @property
    def enabled(self) -> bool:
        """Whether there is a database."""
        return self.url.get_secret_value() != "none"

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text != "none" and not text.startswith(_SCHEMES):
            raise ValueError("write sqlite:///data/gateway.db, postgresql://user:password@host:5432/name, or none")
        return value
