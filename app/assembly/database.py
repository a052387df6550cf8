"""Keys and ledger, where a database is configured. Imported only then: SQLAlchemy takes 17 MB."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog
from msgspec import Struct

from app.domain.errors import KeyStoreUnavailable
from app.keys.keyring import Keyring
from app.ledger.journal import Journal
from app.ledger.ledger import Ledger
from app.ledger.writer import LedgerWriter
from app.settings import SettingsError
from app.settings.database import DatabaseSettings
from app.storage.database import Database, DatabaseAway
from app.storage.keys import list_keys
from app.storage.requests import usage_of
from app.storage.schema import SchemaError, migrate

_log = structlog.get_logger("kimi.assembly")
_RETRY_SECONDS = 1.0
_LAST_ROWS_SECONDS = 5.0


class Records(Struct, frozen=True):
    """The database, and what lives in it."""

    database: Database
    keyring: Keyring
    journal: Journal
    ledger: Ledger
    writer: LedgerWriter

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
        self.keyring.start()
        self.writer.start()
        try:
            yield
        finally:
            if preparing is not None:
                preparing.cancel()
            await self.keyring.aclose()
            await asyncio.to_thread(self.writer.stop, _LAST_ROWS_SECONDS)
            self.database.close()

    async def usage_of(self, key_id: str) -> dict[str, dict[str, int]]:
        """What a key has used today, this month and ever, by the UTC calendar.

        Raises:
            KeyStoreUnavailable: The database is away.
        """
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begins = {"today": day.timestamp(), "month": day.replace(day=1).timestamp(), "total": 0.0}
        try:
            return await self.database.run(
                lambda connection: {name: usage_of(connection, key_id, int(at * 1000)) for name, at in begins.items()},
                reads=True,
            )
        except DatabaseAway:
            raise KeyStoreUnavailable("What was used can't be read at the moment; try again soon.") from None

    def state(self) -> dict[str, dict[str, float]]:
        """The numbers of the moment, for the metrics."""
        return {
            "kimi_database_up": {"database": float(self.database.prepared and not self.database.fault)},
            "kimi_ledger_waiting": {"journal": float(self.writer.waiting)},
            "kimi_ledger_written": {"journal": float(self.writer.written)},
            "kimi_ledger_lost": {"journal": float(self.journal.lost + self.writer.unfit)},
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


def make_records(settings: DatabaseSettings, count: Callable[[str], None]) -> Records:
    """Make everything, without opening it.

    Args:
        count: Told of each look-up of a key.

    Raises:
        SettingsError: The address can't be used.
    """
    try:
        database = Database(settings.url.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    journal = Journal(settings.journal, most=round(settings.journal_max * 1024 * 1024))
    return Records(
        database=database,
        keyring=Keyring(database, known_for=settings.known_for, count=count),
        journal=journal,
        ledger=Ledger(journal),
        writer=LedgerWriter(database, journal, kept_days=settings.requests_kept, max_megabytes=settings.max_size),
    )


def describe(settings: DatabaseSettings) -> str:
    """Try the database, and say what it is; for `doctor`.

    Raises:
        SettingsError: It can't be used; says why.
    """
    try:
        database = Database(settings.url.get_secret_value(), timeout=5)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    try:
        prepare(database)
        with database.transaction(reads=True) as connection:
            count = len(list_keys(connection))
    except DatabaseAway as error:
        raise SettingsError(f"DATABASE_URL: {database.shown_url} can't be used: {error}") from None
    finally:
        database.close()
    return f"{database.shown_url}, {count} keys"


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
        raise
