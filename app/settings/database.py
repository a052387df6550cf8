"""The database of keys and of what was used."""

from pathlib import Path
from typing import Annotated

from pydantic import SecretStr, field_validator

from app.settings.group import Accepts, Seconds, SettingsGroup, Unit, setting

Days = Annotated[float, Unit("days")]
Megabytes = Annotated[float, Unit("MB")]

_SHORTEST_SECRET = 32
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
        "without a password in it, libpq's `PGPASSWORD` or password file is used; in one, write `%40` for `@`. "
        "`none` switches both off: then there are only the keys of `API_MASTER_KEY`.",
    )
    known_for: Seconds = setting(
        "KEYS_WITHOUT_DATABASE_SECONDS",
        3600,
        "How long keys that a worker has seen go on opening while the database is away.",
        ge=0,
    )
    secret_key: Annotated[SecretStr, Accepts("texts of 32 or more characters")] = setting(
        "SECRET_KEY",
        "",
        "What the keys of upstreams are encrypted with that are added in the console, by the admin API or with "
        "`main.py upstreams`: a text of at least 32 characters, the same for all workers; make one with "
        "`openssl rand -base64 32`. Without it, only upstreams without keys can be added. To change it, put the new "
        "one in front of the old one, with a comma in between, run `main.py upstreams encrypt`, and take the old one "
        "away. Whoever loses it has to give the keys again.",
    )
    journal: Path = setting(
        "JOURNAL_DIR",
        "data/journal",
        "A folder on a disk of this machine, where finished calls wait for the database. Gateways with different "
        "databases need different ones: each carries over what it finds there.",
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

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys of `SECRET_KEY`; the first one encrypts."""
        return tuple(key for part in self.secret_key.get_secret_value().split(",") if (key := part.strip()))

    @field_validator("secret_key")
    @classmethod
    def _long_keys(cls, value: SecretStr) -> SecretStr:
        if any(0 < len(part.strip()) < _SHORTEST_SECRET for part in value.get_secret_value().split(",")):
            raise ValueError(
                f"each text must have at least {_SHORTEST_SECRET} characters; make one with: openssl rand -base64 32"
            )
        return value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text != "none" and not text.startswith(_SCHEMES):
            raise ValueError("write sqlite:///data/gateway.db, postgresql://user:password@host:5432/name, or none")
        return value
