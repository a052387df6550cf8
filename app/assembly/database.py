"""Keys and ledger, where a database is configured. Imported only then: SQLAlchemy takes 17 MB."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog
from msgspec import Struct

from app.assembly.limits import Limits, book_of, policy_of
from app.assembly.providers import Providers
from app.domain.caller import Caller
from app.domain.counting import counted
from app.domain.errors import KeyStoreUnavailable
from app.domain.granting import LimitState
from app.keys.keyring import Keyring
from app.keys.last_uses import LastUses
from app.ledger.journal import Journal
from app.ledger.ledger import Ledger
from app.ledger.writer import LedgerWriter
from app.limits.following import LimitFollower
from app.limits.leases import Leases
from app.limits.limiter import Limiter
from app.limits.overview import LimitUse, Overview
from app.limits.shared import SharedStore
from app.observe.metrics import Metrics
from app.providers.following import UpstreamFollower
from app.providers.stored import Catalog, UpstreamAdministration
from app.recording.recorder import Recorder
from app.settings import Settings, SettingsError
from app.settings.database import DatabaseSettings
from app.storage.database import AddressRefused, Connection, Database, DatabaseAway
from app.storage.feed import ChangeFeed
from app.storage.keys import list_keys
from app.storage.limits import Worker, states_of
from app.storage.schema import SchemaError, migrate
from app.storage.sealing import Sealer
from app.storage.upstreams import list_upstreams
from app.storage.usage import usage_of

_log = structlog.get_logger("kimi.assembly")
_RETRY_SECONDS = 1.0
_LAST_ROWS_SECONDS = 5.0
_LAST_TEXTS_SECONDS = 1.0
_LAST_USES_SECONDS = 1.0


class Records(Struct, frozen=True):
    """The database, and what lives in it."""

    database: Database
    feed: ChangeFeed
    keyring: Keyring
    last_uses: LastUses
    journal: Journal
    ledger: Ledger
    writer: LedgerWriter
    limits: Limits
    limit_follower: LimitFollower
    recorder: Recorder
    upstreams: UpstreamAdministration
    upstream_follower: UpstreamFollower
    worker: Worker

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Look at the tables, follow what changes, carry over what was used.

        Raises:
            SettingsError: The database is there, and can't be used, or the journal can't.
        """
        _open_journal(self.journal)
        preparing: asyncio.Task[None] | None = None
        try:
            await asyncio.to_thread(prepare, self.database)
        except DatabaseAway as error:
            _log.warning("database_away", reason=str(error), meaning="the keys in it don't open until it is back")
            preparing = asyncio.create_task(self._prepare_later())
        self.feed.start(self.keyring, self.limit_follower, self.upstream_follower, self.recorder)
        self.writer.start()
        self.recorder.start()
        self.last_uses.start()
        self.limits.leases.start()
        try:
            # Else the first requests would find nobody who serves their models.
            await self.upstream_follower.ready()
            yield
        finally:
            if preparing is not None:
                preparing.cancel()
            await self.feed.aclose()
            await self.recorder.aclose(_LAST_TEXTS_SECONDS)
            await self.last_uses.aclose(_LAST_USES_SECONDS)
            await self.upstream_follower.aclose()
            await asyncio.to_thread(self.writer.stop, _LAST_ROWS_SECONDS)
            # Now what the last calls have used is in the ledger, and no quota has to be held for it any more.
            await self.limits.leases.aclose()
            self.database.close()

    async def standing_of(self, caller: Caller) -> tuple[dict[str, dict[str, int]], list[LimitUse]]:
        """What a caller has used today, this month and ever, by the UTC calendar, and how it stands with its limits.

        Raises:
            KeyStoreUnavailable: The database is away.
        """
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begins = {"today": day.timestamp(), "month": day.replace(day=1).timestamp(), "total": 0.0}
        milliseconds = {name: int(at * 1000) for name, at in begins.items()}
        overview = self.limits.overview
        limits = overview.limits_of(caller)

        def read(connection: Connection) -> tuple[dict[str, dict[str, int]], list[LimitState]]:
            usage = usage_of(connection, caller.id, milliseconds)
            return usage, states_of(self.database, connection, limits)

        try:
            usage, states = await self.database.run(read, reads=True)
        except DatabaseAway:
            raise KeyStoreUnavailable("What was used can't be read at the moment; try again soon.") from None
        return usage, overview.uses(limits, states)

    async def take_in(self) -> None:
        """Bring this worker's caches up to date: whoever has changed something sees what came of it."""
        with suppress(DatabaseAway):
            await self.feed.catch_up()
            await self.upstream_follower.settled()

    def state(self) -> dict[str, dict[str, float]]:
        """The numbers of the moment, for the metrics."""
        return {
            "kimi_database_up": {"database": float(self.database.prepared and not self.database.fault)},
            "kimi_ledger_waiting": {"journal": float(self.writer.waiting)},
            "kimi_ledger_written": {"journal": float(self.writer.written)},
            "kimi_ledger_lost": {"journal": float(self.journal.lost + self.writer.unfit)},
            "kimi_recorded_texts_lost": {"recorder": float(self.recorder.lost)},
        }

    async def _prepare_later(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            with suppress(DatabaseAway):
                try:
                    await asyncio.to_thread(prepare, self.database)
                except SettingsError as error:
                    _log.error("database_unusable", reason=str(error))
                return


def make_records(settings: Settings, metrics: Metrics, providers: Providers) -> Records:
    """Make everything, without opening it.

    Args:
        providers: What the settings say of upstreams; those of the database are added to them.

    Raises:
        SettingsError: The address can't be used.
    """
    group = settings.database
    try:
        database = Database(group.url.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    feed = ChangeFeed(database)
    journal = Journal(group.journal, most=round(group.journal_max * 1024 * 1024))
    writer = LedgerWriter(
        database,
        journal,
        kept_days=group.requests_kept,
        max_megabytes=group.max_size,
        zone=settings.limits.zone,
    )
    book = book_of(settings.limits)
    follower = LimitFollower(book)
    catalog = catalog_of(settings, providers)
    store = SharedStore(database)
    leases = Leases(store, workers=settings.cluster.workers, written=lambda: writer.written + journal.lost)
    keyring = Keyring(database, feed, known_for=group.known_for, count=metrics.key_looked_up)
    limiter = Limiter(
        book,
        leases,
        policy_of(settings.limits),
        cost=follower.cost,
        line=lambda: journal.appended,
        on_refusal=metrics.limit_refused,
    )
    return Records(
        database=database,
        feed=feed,
        keyring=keyring,
        last_uses=LastUses(database, keyring.used),
        journal=journal,
        ledger=Ledger(journal),
        writer=writer,
        limits=Limits(limiter, leases, Overview(book, leases, settings.limits.zone, store.worker.id)),
        limit_follower=follower,
        recorder=Recorder(database),
        upstreams=UpstreamAdministration(database, catalog),
        upstream_follower=UpstreamFollower(catalog),
        worker=store.worker,
    )


def catalog_of(settings: Settings, providers: Providers) -> Catalog:
    """What upstreams and routes there may be besides those of the settings."""
    return Catalog(providers.registry, providers.routes, providers.make, Sealer(settings.database.secret_keys))


def describe(settings: DatabaseSettings) -> str:
    """Try the database, and say what it is; for `doctor`.

    Raises:
        SettingsError: It can't be used; says why.
    """
    try:
        database = Database(settings.url.get_secret_value(), timeout=5)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    is_new = ", a new file" if database.is_missing else ""
    try:
        prepare(database)
        with database.transaction(reads=True) as connection:
            count = len(list_keys(connection))
    except DatabaseAway as error:
        raise SettingsError(f"DATABASE_URL: {database.shown_url} can't be used: {error}") from None
    finally:
        database.close()
    return f"{database.shown_url}{is_new}, {counted(count, 'key')}"


def upstream_names(settings: DatabaseSettings) -> list[str]:
    """The names of the database's upstreams; for `doctor`.

    Raises:
        DatabaseAway: It can't be reached.
    """
    database = Database(settings.url.get_secret_value(), timeout=5)
    try:
        with database.transaction(reads=True) as connection:
            return [upstream.name for upstream in list_upstreams(connection)]
    finally:
        database.close()


def prepare_at_start(settings: DatabaseSettings) -> None:
    """Bring the tables up to date, if the database is there.

    Raises:
        SettingsError: It can't be used.
    """
    try:
        database = Database(settings.url.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    try:
        prepare(database)
    except DatabaseAway:
        pass  # `Records` says so, and goes on looking for it
    finally:
        database.close()
    trial = Journal(settings.journal, most=1)
    _open_journal(trial)
    trial.discard()


def _open_journal(journal: Journal) -> None:
    try:
        journal.open()
    except OSError as error:
        raise SettingsError(
            f"JOURNAL_DIR: nothing can be written to {journal.folder} ({error.strerror}); name another folder, or set "
            "DATABASE_URL=none to go without keys and ledger"
        ) from None


def prepare(database: Database) -> None:
    """Bring the tables up to date.

    Raises:
        SettingsError: The database is there, and can't be used.
        DatabaseAway: It can't be reached.
    """
    try:
        migrate(database)
    except SchemaError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    except DatabaseAway as error:
        if database.is_sqlite:
            raise SettingsError(f"DATABASE_URL: {database.url.database} can't be used: {error}") from None
        if isinstance(error, AddressRefused):
            raise SettingsError(f"DATABASE_URL: {error}") from None
        raise
