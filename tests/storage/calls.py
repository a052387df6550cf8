"""Rows for tests of what is asked about them."""

import random
from typing import Any

import msgspec

from app.storage.database import Database
from app.storage.request_pages import page_of_rows
from app.storage.requests import write_rows
from app.storage.rows import RequestRow
from tests.live import until

PLAIN = RequestRow(
    at=1_764_000_000_000,
    count=0,
    request_id="given-by-a-client",
    key_id="k_ada",
    project="lab",
    model="kimi",
    served="kimi",
    listed=True,
    provider="kimi-web",
    dialect="openai",
    outcome="completed",
    error=None,
    status=200,
    streamed=False,
    tokens_in=3,
    tokens_out=4,
    tokens_cached=0,
    estimated=True,
    milliseconds=1500,
    first_milliseconds=500,
    session=None,
    end_user=None,
    dropped=0,
    passed_over=None,
)


def call(**fields: Any) -> RequestRow:
    """A call that differs from the plain one in these fields."""
    return msgspec.structs.replace(PLAIN, **fields)


def rows_of(database: Database, number: int) -> list[dict[str, Any]]:
    """All rows, as soon as there are so many, and no more; the oldest first."""

    def read() -> list[dict[str, Any]]:
        with database.transaction(reads=True) as connection:
            return page_of_rows(connection, limit=max(number + 1, 50)).rows[::-1]

    rows = until(lambda: rows if len(rows := read()) >= number else None)
    assert rows is not None
    assert len(rows) == number
    return rows


def some_calls(count: int, *, begin: int, milliseconds: int, seed: int = 7) -> list[RequestRow]:
    """Calls of several keys, models and outcomes, in the order of time."""
    rng = random.Random(seed)
    calls = []
    for place in range(count):
        model, listed = rng.choice((("kimi", True), ("kimi", True), ("qwen", True), ("made-up", False)))
        outcome, error = rng.choice((*[("completed", None)] * 8, ("failed", "upstream_timeout"), ("abandoned", None)))
        key, project = rng.choice((("k_ada", "lab"), ("k_ada", "lab"), ("k_bob", "lab"), ("k_eve", "shop")))
        calls.append(
            call(
                at=begin + place * milliseconds // count,
                count=place & 0xFFF,
                request_id=f"request-{place}",
                key_id=key,
                project=project,
                model=rng.choice((model, "gpt-4o")),
                served=model,
                listed=listed,
                provider=rng.choice(("kimi-web", "moonshot")),
                outcome=outcome,
                error=error,
                milliseconds=rng.randrange(200_000),
                session=f"session-{place % 5}" if place % 5 else None,
            )
        )
    return calls


def write(database: Database, calls: list[RequestRow], *, journal: int = 1) -> None:
    """Write calls, and add them to the sums."""
    with database.transaction() as connection:
        write_rows(database, connection, journal, calls)
