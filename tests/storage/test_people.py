"""People and their logins."""

from app.people.administration import new_person
from app.people.sign_in import Origin, end_others, make_link_ticket, sign_in_with_key, sign_in_with_ticket
from app.storage.database import Database
from app.storage.people import logins_of
from tests import databases

shared_postgres = databases.shared_postgres
database_url = databases.database_url
empty_database = databases.empty_database
database = databases.database


def test_logins_are_those_of_one_person_or_one_key(database: Database) -> None:
    """Nobody sees where others are signed in, nor can end that."""
    with database.transaction() as connection:
        people = [new_person(connection, name, "admin") for name in ("ada", "grace")]
        logins = [
            sign_in_with_ticket(connection, make_link_ticket(connection, person), Origin("")).login
            for person in (*people, people[0])
        ]
        holders = [sign_in_with_key(connection, key_id, Origin("")).login for key_id in ("k_one", "k_two", "k_one")]

        def digests(person_id: str | None, key_id: str | None) -> set[str]:
            return {one.digest for one in logins_of(connection, person_id=person_id, key_id=key_id)}

        assert digests(people[0].id, None) == {logins[0].digest, logins[2].digest}
        assert digests(None, "k_one") == {holders[0].digest, holders[2].digest}
        assert end_others(connection, logins[0], logins[1].digest) == 0
        assert end_others(connection, logins[0], logins[0].digest) == 0
        assert end_others(connection, holders[1]) == 0
        assert end_others(connection, holders[0]) == 1
        assert end_others(connection, logins[0], logins[2].digest) == 1
        assert digests(people[0].id, None) == {logins[0].digest}
        assert digests(people[1].id, None) == {logins[1].digest}
