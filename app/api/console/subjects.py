"""What the log of changes calls by ids, in the words of people."""

from collections.abc import Iterable

from app.storage.database import Connection
from app.storage.keys import list_keys
from app.storage.people import list_people


def names_of_subjects(connection: Connection, subjects: Iterable[str]) -> dict[str, str]:
    """The names of people and keys, by what the log calls them, as far as there are any."""
    kinds = {subject.partition(":")[0] for subject in subjects}
    names: dict[str, str] = {}
    if "person" in kinds:
        names |= {f"person:{person.id}": person.name for person in list_people(connection)}
    if "key" in kinds:
        names |= {f"key:{key.id}": f"{key.project}/{key.name}" for key in list_keys(connection, revoked=True)}
    return names
