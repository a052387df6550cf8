"""Requests that nobody would think of, made by schemathesis from the admin API's own description."""

from pathlib import Path

import pytest

from app.people.administration import new_person
from app.storage.clock import now
from app.storage.database import Database
from tests.api.admin.conftest import create
from tests.fuzzing import KEY, MOST_SECONDS, OWN_KEY, PERSON, fuzz
from tests.live import LiveGateway
from tests.storage.calls import some_calls, write

# The description can't tell every combination that is refused, nor that `/limits/gateway/try` may be a scope of that
# name for other methods (test_doors.py has those).
NOT_CHECKED = "negative_data_rejection,positive_data_acceptance,unsupported_method"


@pytest.mark.timeout(MOST_SECONDS + 60)
def test_no_request_makes_the_admin_api_stumble(keeper: LiveGateway, database: Database, tmp_path: Path) -> None:
    """No made-up request, right or wrong, gets a 5xx, an undescribed answer or an error without its envelope."""
    operator = create(database, "operator", scopes=["admin"])
    subject = create(database, "subject")
    with database.transaction() as connection:
        person = new_person(connection, "operator", "admin")
    write(database, some_calls(300, begin=now() - 3_600_000, milliseconds=3_500_000))
    summary = fuzz(
        f"{keeper.base_url}/admin/v1/openapi.json",
        operator.secret,
        tmp_path,
        checks="tests.api.admin.fuzz_checks",
        # The feed never ends; it has tests of its own.
        arguments=[
            *("--exclude-checks", NOT_CHECKED, "--max-examples", "20"),
            *("--exclude-path", "/admin/v1/requests/feed"),
        ],
        environment={KEY: subject.key.id, OWN_KEY: operator.key.id, PERSON: person.id},
    )
    assert summary["operations"]["tested"] == 52
    assert summary["test_cases"]["generated"] > 500
