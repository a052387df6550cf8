"""What the steps make of an empty SQLite file, as a script. After a new step:

python -m tests.storage.new_sqlite
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from app.storage.database import Database
from app.storage.schema import NEW_SQLITE
from tests.storage.steps import upgrade


def new_sqlite() -> str:
    """The script: the statements of a dump, without those that only a dump needs."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        database = Database(f"sqlite:///{path}")
        with database.transaction() as connection:
            upgrade(connection, "head")
        database.close()
        with closing(sqlite3.connect(path)) as dumped:
            lines = [line for line in dumped.iterdump() if not line.startswith(("BEGIN", "COMMIT", "DELETE"))]
            # As they are, with all spaces: SQLite keeps the text of each.
            return "".join([f"{line}\n" for line in lines])


if __name__ == "__main__":
    NEW_SQLITE.write_text(new_sqlite(), "utf-8")
