"""One call: a line of a journal, and a row of the database."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from msgspec import Struct

from app.domain.request_ids import number_of, time_in, written
from app.domain.units import unit_of

NUMBER_BITS = 10
_COUNT_BITS = 12
ID_BITS = NUMBER_BITS + _COUNT_BITS
_HIGHEST_ID = (1 << 63) - 1
_COUNT_MASK = (1 << _COUNT_BITS) - 1
# How long before the call began, in milliseconds, its request can have come: its body had to be read.
LONGEST_ARRIVAL = 15_000
# Clocks are set.
CLOCK_SLACK = 1_000
RowOutcome = Literal["completed", "failed", "abandoned", "refused", "replayed"]
OUTCOMES: tuple[RowOutcome, ...] = get_args(RowOutcome)
COMPLETED = "completed"
# What the column takes; an upstream may name any limit of its own.
_LARGEST_LIMIT = (1 << 31) - 1
_NAMED = ("key", "project", "model", "provider", "dialect", "action")
_AS_THEY_ARE = (
    *("error", "status", "streamed", "tokens_in", "tokens_out", "tokens_cached", "estimated", "cost"),
    *("milliseconds", "first_milliseconds", "session", "end_user", "dropped", "passed_over"),
    *("prompt_size", "prompt_limit", "prompt_in_tokens", "shortened", "waits", "amount"),
)


class RequestRow(Struct, frozen=True, array_like=True, gc=False):
    """One call, as a journal's line has it.

    Args:
        at: When it began, in milliseconds since the epoch.
        count: Tells apart the calls of one millisecond: 12 bits of a counter.
        model: The name that was asked for.
        served: The model that it stood for.
        listed: Whether that is one of a bounded number of names.
        outcome: `completed`, `failed`, `abandoned`, `refused` (nothing was sent to an upstream) or `replayed` (the
            answer of an earlier request was given again).
        estimated: Whether the tokens are the gateway's estimate.
        first_milliseconds: Until the first word; None if there was none.
        session: A digest.
        end_user: The request's `user`.
        passed_over: Who could not answer, as `provider=reason`, separated by commas.
        action: What the call meant for its session. Lines of older versions end before it.
        prompt_size: The size of its prompt.
        prompt_limit: What that had room in.
        prompt_in_tokens: Whether both are in tokens; else they are in characters.
        shortened: Messages that were cut; None if none were.
        waits: As `app.domain.waits.packed` writes them; None if there were none.
        tokens_cache_written: Of `tokens_in`, those that were written into a cache; None for none. Lines of older
            versions end before it.
        unit: The number of the unit of what was used besides tokens; None for nothing.
        amount: How much of it.
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
    action: str | None = None
    prompt_size: int | None = None
    prompt_limit: int | None = None
    prompt_in_tokens: bool | None = None
    shortened: int | None = None
    waits: str | None = None
    tokens_cache_written: int | None = None
    unit: int | None = None
    amount: int | None = None


def id_at(milliseconds: int) -> int:
    """The lowest id of a row from a time on, in milliseconds since the epoch."""
    # Of times that no row will ever have, the highest one.
    return min(milliseconds << ID_BITS, _HIGHEST_ID)


def time_of(row_id: int) -> int:
    """When the call of a row began, in milliseconds since the epoch."""
    return row_id >> ID_BITS


def names_in(rows: Iterable[RequestRow]) -> set[str]:
    """The names in rows that are kept by their numbers."""
    names: set[str] = set()
    for row in rows:
        names.update((row.key_id, row.project, row.provider, row.dialect))
        if row.listed:
            names.add(row.served)
        if row.action is not None:
            names.add(row.action)
    return names


def values_of(row: RequestRow, names: Mapping[str, int], journal: int, cost: int) -> tuple[Any, ...]:
    """The row in the order of the table's columns.

    Args:
        names: The numbers of its names.
        journal: The number of the journal that it comes from.
        cost: In nano-dollars.
    """
    request_number = _number_if_findable(row)
    return (
        (row.at << ID_BITS) | (journal << _COUNT_BITS) | (row.count & _COUNT_MASK),
        request_number,
        cost,
        names[row.key_id],
        names[row.project],
        names[row.served] if row.listed else None,
        names[row.provider],
        names[row.dialect],
        row.tokens_in,
        row.tokens_out,
        row.tokens_cached,
        row.milliseconds,
        row.first_milliseconds,
        row.dropped,
        row.status,
        int(row.streamed),
        int(row.estimated),
        None if row.outcome == COMPLETED else row.outcome,
        row.error,
        row.request_id if request_number is None else None,
        None if row.listed and row.model == row.served else row.model,
        None if row.listed or row.model == row.served else row.served,
        row.session,
        row.end_user,
        row.passed_over,
        None if row.action is None else names[row.action],
        row.prompt_size,
        None if row.prompt_limit is None else min(row.prompt_limit, _LARGEST_LIMIT),
        None if row.prompt_in_tokens is None else int(row.prompt_in_tokens),
        row.shortened,
        row.waits,
        row.tokens_cache_written,
        row.unit,
        row.amount,
    )


def names_needed(values: dict[str, Any]) -> list[int]:
    """The numbers in a row of the table whose names its text needs."""
    return [values[column] for column in _NAMED if values[column] is not None]


def as_told(values: dict[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """A row of the table in the words of `RequestRow`; `served` is None if that model was asked for.

    Args:
        names: The texts of the numbers in it.
    """
    number, model = values["request_number"], values["model"]
    served = values["served"] or values["asked"] if model is None else names[model]
    asked = values["asked"] or served
    return {
        "id": values["id"],
        "request_id": values["request_id"] if number is None else written(number),
        "key_id": names[values["key"]],
        "project": names[values["project"]],
        "model": asked,
        "served": None if served == asked else served,
        "provider": names[values["provider"]],
        "dialect": names[values["dialect"]],
        "outcome": values["outcome"] or COMPLETED,
        "action": None if values["action"] is None else names[values["action"]],
        "tokens_cache_written": values["tokens_cache_written"] or 0,
        "unit": unit_of(values["unit"]),
        **{name: values[name] for name in _AS_THEY_ARE},
    }


def _number_if_findable(row: RequestRow) -> int | None:
    """The number of an id of ours; None for one that a client gave, or gave again: its time isn't that of the call."""
    number = number_of(row.request_id)
    if number is None:
        return None
    return number if -CLOCK_SLACK <= row.at - time_in(number) <= LONGEST_ARRIVAL else None
