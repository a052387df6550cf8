"""One call: a line of a journal, and a row of the database."""

from typing import Any

from msgspec import Struct

from app.domain.request_ids import number_of, time_in

NUMBER_BITS = 10
_COUNT_BITS = 12
_ID_BITS = NUMBER_BITS + _COUNT_BITS
_COUNT_MASK = (1 << _COUNT_BITS) - 1
# How long before the call began, in milliseconds, its request can have come: its body had to be read.
LONGEST_ARRIVAL = 15_000
# Clocks are set.
CLOCK_SLACK = 1_000


class RequestRow(Struct, frozen=True, array_like=True, gc=False):
    """One call, as a journal's line has it.

    Args:
        at: When it began, in milliseconds since the epoch.
        count: Tells apart the calls of one millisecond: 12 bits of a counter.
        model: The name that was asked for.
        served: The model that it stood for.
        listed: Whether that is one of a bounded number of names.
        outcome: `completed`, `failed`, `abandoned` or `refused`.
        estimated: Whether the tokens are the gateway's estimate.
        first_milliseconds: Until the first word; None if there was none.
        session: A digest.
        end_user: The request's `user`.
        passed_over: Who could not answer, as `provider=reason`, separated by commas.
    """

    at: int
    count: int
    request_id: str
    key_id: str
    project: str
    model: str
    served: str
    listed: bool
    provider: str
    dialect: str
    outcome: str
    error: str | None
    status: int
    streamed: bool
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    estimated: bool
    milliseconds: int
    first_milliseconds: int | None
    session: str | None
    end_user: str | None
    dropped: int
    passed_over: str | None


def id_at(milliseconds: int) -> int:
    """The lowest id of a row from a time on, in milliseconds since the epoch."""
    return milliseconds << _ID_BITS


def time_of(row_id: int) -> int:
    """When the call of a row began, in milliseconds since the epoch."""
    return row_id >> _ID_BITS


def values_of(row: RequestRow, number: int, cost: int) -> tuple[Any, ...]:
    """The row in the order of the table's columns.

    Args:
        number: The number of the journal that it comes from.
        cost: In nano-dollars.
    """
    request_number = _number_if_findable(row)
    return (
        (row.at << _ID_BITS) | (number << _COUNT_BITS) | (row.count & _COUNT_MASK),
        row.request_id if request_number is None else "",
        row.key_id,
        row.project,
        row.model,
        None if row.served == row.model else row.served,
        row.provider,
        row.dialect,
        row.outcome,
        row.error,
        row.status,
        int(row.streamed),
        row.tokens_in,
        row.tokens_out,
        row.tokens_cached,
        int(row.estimated),
        cost,
        row.milliseconds,
        row.first_milliseconds,
        row.session,
        row.end_user,
        row.dropped,
        row.passed_over,
        request_number,
    )


def _number_if_findable(row: RequestRow) -> int | None:
    """The number of an id of ours; None for one that a client gave, or gave again: its time isn't that of the call."""
    number = number_of(row.request_id)
    if number is None:
        return None
    return number if -CLOCK_SLACK <= row.at - time_in(number) <= LONGEST_ARRIVAL else None
