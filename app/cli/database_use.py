"""Whether a gateway uses a database, as far as the database can tell."""

import sys
import time
from collections.abc import Callable

from app.cli.database_access import CommandFault
from app.domain.counting import counted
from app.storage.database import Database
from app.storage.limits import SeenWorker, seen_workers

_PAUSE_SECONDS = 0.5


def check_unused(database: Database, pause: Callable[[float], None] = time.sleep) -> None:
    """See that no gateway uses a database. One that was stopped a moment ago is waited for: its workers don't sign off.

    Raises:
        CommandFault: One does.
    """
    before = _alive(database)
    alive = before
    if alive:
        print(
            f"{_named(alive)} used it a moment ago; waiting up to 15 s for a sign that it still does …", file=sys.stderr
        )
    while alive:
        pause(_PAUSE_SECONDS)
        alive = _alive(database)
        running = [worker for name, worker in alive.items() if name not in before or before[name] != worker]
        if running:
            raise CommandFault(
                f"A gateway uses the database ({_named({worker.id: worker for worker in running})}), and what comes "
                "while it is copied would be lost. Stop the gateway first; or say --even-if-in-use."
            )


def _alive(database: Database) -> dict[str, SeenWorker]:
    with database.transaction(reads=True) as connection:
        return {worker.id: worker for worker in seen_workers(database, connection) if worker.is_alive}


def _named(workers: dict[str, SeenWorker]) -> str:
    """What a message says of workers."""
    machines = sorted({worker.machine for worker in workers.values()})
    return f"{counted(len(workers), 'worker')} on {', '.join(machines)}"
