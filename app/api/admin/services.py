"""What the admin API works with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from app.api.admin.feed import Feed
from app.limits.book import LimitBook
from app.observe.metrics import State
from app.providers.registry import ProviderRegistry
from app.providers.stored import UpstreamAdministration
from app.sessions.base import SessionStore
from app.storage.database import Database


class Setting(Struct, frozen=True):
    """A setting as it holds.

    Args:
        value: As an operator writes it; None for a secret, and for one that isn't set.
        source: Where it comes from.
        is_set: Whether it has a value; of a secret that is all that is told.
    """

    name: str
    group: str
    value: str | None
    source: Literal["environment", "file", "default"]
    is_set: bool
    meaning: str


class AdminServices(Struct, frozen=True):
    """What the admin API works with.

    Args:
        upstreams: Changes the upstreams and routes of the database.
        upstream_faults: Why some of these can't be used by this worker, by their names.
        take_in: Has this worker know what was changed.
        state: The numbers of the moment, by metric.
        settings: All settings.
        zone: The time zone whose calendar quotas follow.
        wait: Seconds that a call waits at most for a limit.
        new_book: Makes a book with the limits of the settings.
        fixed_limits: The same as texts, by the names of their scopes.
        environment_keys: The ids of the keys that aren't in the database.
        worker: How the database calls this worker.
        started_at: When it was started, in milliseconds since the epoch.
    """

    database: Database
    feed: Feed
    registry: ProviderRegistry
    upstreams: UpstreamAdministration
    upstream_faults: Callable[[], Mapping[str, str]]
    take_in: Callable[[], Awaitable[None]]
    sessions: SessionStore
    state: Callable[[], State]
    settings: Callable[[], Sequence[Setting]]
    zone: ZoneInfo
    wait: float
    new_book: Callable[[], LimitBook]
    fixed_limits: Mapping[str, str]
    environment_keys: Sequence[str]
    version: str
    worker: str
    started_at: int
