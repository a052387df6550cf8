"""What the admin API works with."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from app.limits.limiter import Limiter
from app.observe.metrics import State
from app.providers.registry import ProviderRegistry
from app.sessions.base import SessionStore
from app.storage.database import Database


class Setting(Struct, frozen=True):
    """A setting as it holds.

    Args:
        value: As an operator writes it; None for a secret, and for one that isn't set.
        source: `environment`, `file` or `default`.
        is_set: Whether it has a value; of a secret that is all that is told.
    """

    name: str
    group: str
    value: str | None
    source: str
    is_set: bool
    meaning: str


class AdminServices(Struct, frozen=True):
    """What the admin API works with.

    Args:
        state: The numbers of the moment, by metric.
        settings: All settings.
        zone: The name of the time zone whose calendar quotas follow.
    """

    database: Database
    registry: ProviderRegistry
    sessions: SessionStore
    limiter: Limiter
    state: Callable[[], State]
    settings: Callable[[], Sequence[Setting]]
    zone: str
    version: str
    started_at: int
    fixed_limits: Mapping[str, str]
