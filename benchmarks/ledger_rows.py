"""Makes a ledger as months of real use would leave it: rows and sums, through the functions that the product uses."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.domain.request_ids import written
from app.storage.database import Database
from app.storage.keys import StoredKey, StoredSecret, add_key
from app.storage.names import numbers_of
from app.storage.requests import COLUMNS, insert_rows
from app.storage.rows import RequestRow, names_in, values_of
from app.storage.usage import ALL_KEYS, DAY, HOUR, KEY_HOURS_KEPT, add_sums, sums_of

DAYS = 60
KEYS = 400
PROJECTS = 40
RARE_MODEL = "kimi-thinking-preview"
RARE_ROWS = 30
MODELS = (
    *("kimi", "kimi-k2", "kimi-k2-0905-preview", "kimi-k2-turbo-preview", "kimi-latest", "moonshot-v1-128k"),
    *("deepseek-chat", "deepseek-reasoner", "gpt-4o", "gpt-4o-mini", "gpt-oss-120b", "qwen3-235b-a22b"),
    *("glm-4.6", "llama-3.3-70b-instruct", "mistral-large-latest", "gemini-2.5-flash", "claude-sonnet-4-5"),
    *("phi-4", "gemma3:27b", "qwen2.5-coder:32b", "minimax-m2", "step-2-16k", "yi-large", "ernie-4.5-turbo"),
)
PROVIDERS = ("kimi-web", "moonshot", "deepseek", "openrouter", "siliconflow", "ollama", "openai", "groq")
DIALECTS = ("openai", "openai", "openai", "anthropic", "responses", "completions")
ERRORS = (
    *("upstream_timeout", "upstream_unavailable", "upstream_rate_limited", "cloudflare_challenge", "site_changed"),
    *("context_length_exceeded", "session_busy", "nonce_rejected", "empty_reply", "content_filter"),
    *("gateway_overloaded", "upstream_refused", "unexpected_reply", "model_not_found"),
)
RARE_ERROR = "internal_error"
_STATUS = {"upstream_timeout": 504, "upstream_rate_limited": 429, "context_length_exceeded": 400, "session_busy": 409}


@dataclass(frozen=True, slots=True)
class Habit:
    """What one kind of call looks like, whoever makes it."""

    key_id: str
    project: str
    asked: str
    served: str
    provider: str
    dialect: str


@dataclass(frozen=True, slots=True)
class Filled:
    """What is in the database.

    Args:
        rows: How many rows.
        now: When the last one began, in milliseconds since the epoch.
        busy_key: The one with the most rows.
        rare_key: One with few.
        a_request: Id, time and id of the row of some request with an id of ours.
        given_id: A request's id that its client gave.
    """

    rows: int
    now: int
    busy_key: str
    rare_key: str
    row_id: int
    request_id: str
    given_id: str


def fill(database: Database, rows: int, *, seed: int = 1) -> Filled:
    """Fill an empty database that has its tables."""
    rng = random.Random(seed)
    now = time.time_ns() // 1_000_000
    habits, weights = _habits(rng)
    with database.transaction() as connection:
        for number in range(KEYS):
            _add_key(connection, number)
    begin = now - now % HOUR - DAYS * DAY
    days: dict[tuple[Any, ...], list[int]] = {}
    known: list[tuple[int, str]] = []
    done = 0
    for hour in range(DAYS * 24 + 1):
        start, end = begin + hour * HOUR, min(begin + (hour + 1) * HOUR, now)
        count = rows * (end - begin) // (now - begin) - done
        done += count
        calls = list(_calls(rng, habits, weights, start, end, count))
        sums = sums_of(calls, [0] * count)
        with database.transaction() as connection:
            names = numbers_of(database, connection, names_in(calls))
            values = [values_of(row, names, 1, 0) for row in calls]
            known += [(value[0], row.request_id) for value, row in zip(values[:9:4], calls[:9:4], strict=True)]
            if database.is_sqlite:
                insert_rows(database, connection, values)
            else:
                _copy(connection, values)
            add_sums(database, connection, _hours(sums, now))
            for key, line in sums.items():
                if key[0] == "day":
                    days[key] = [old + new for old, new in zip(days.get(key, [0] * len(line)), line, strict=True)]
            if (start + HOUR) % DAY == 0 or hour == DAYS * 24:
                add_sums(database, connection, days)
                days = {}
    row_id, request_id = next(pair for pair in known[len(known) // 2 :] if pair[1].startswith("req_"))
    given = next(request_id for _, request_id in known if not request_id.startswith("req_"))
    return Filled(done, now, _key_id(0), _key_id(KEYS - 1), row_id, request_id, given)


def _habits(rng: random.Random) -> tuple[list[Habit], list[float]]:
    """What the keys do, and how often: few of them make most of the calls."""
    habits, weights = [], []
    for number in range(KEYS - 1):
        models = rng.sample(range(len(MODELS)), rng.choice((1, 2, 2, 3, 5)))
        for model in [0, *models] if number % 3 == 0 else models:
            served = MODELS[model]
            asked = "gpt-4o" if rng.random() < 0.15 else served
            provider = PROVIDERS[model % len(PROVIDERS)]
            for name in {provider, rng.choice(PROVIDERS)} if rng.random() < 0.3 else {provider}:
                habits.append(Habit(_key_id(number), _project(number), asked, served, name, rng.choice(DIALECTS)))
                weights.append(1 / (number + 1) ** 0.9 / (len(models) + 1))
    return habits, weights


def _calls(
    rng: random.Random, habits: list[Habit], weights: list[float], start: int, end: int, count: int
) -> Iterator[RequestRow]:
    """The calls of an hour, in the order of time."""
    times = sorted(rng.randrange(start, end) for _ in range(count))
    for place, (at, habit) in enumerate(zip(times, rng.choices(habits, weights, k=count), strict=True)):
        chance = rng.random()
        if place == count // 2 and (start // HOUR) % (DAYS * 24 // RARE_ROWS) == 0:
            habit = Habit(_key_id(KEYS - 1), _project(KEYS - 1), RARE_MODEL, RARE_MODEL, "moonshot", "openai")  # noqa: PLW2901
        elif place == count // 3 and (start // HOUR) % (DAYS * 24 // RARE_ROWS) == 1:
            chance = 2.0
        yield _call(rng, habit, at, place, chance)


def _call(rng: random.Random, habit: Habit, at: int, place: int, chance: float) -> RequestRow:
    outcome, error, status = "completed", None, 200
    if chance > 1:
        outcome, error, status = "failed", RARE_ERROR, 500
    elif chance > 0.975:
        outcome, error = "failed", ERRORS[min(int(rng.expovariate(0.4)), len(ERRORS) - 1)]
        status = _STATUS.get(error, 502)
    elif chance > 0.965:
        outcome, status = "abandoned", 499
    elif chance > 0.96:
        outcome, error, status = "refused", "rate_limit_exceeded", 429
    bits = rng.getrandbits(64)
    took = int(rng.lognormvariate(7.8, 0.9))
    tokens = int(rng.lognormvariate(6, 1.4))
    return RequestRow(
        at=at,
        count=place & 0xFFF,
        request_id=written((at - 1) << 22 | bits & 0x3FFFFF)
        if bits & 7
        else f"{bits:016x}-4f3a-9b1c-{bits >> 16:012x}",
        key_id=habit.key_id,
        project=habit.project,
        model=habit.asked,
        served=habit.served,
        listed=True,
        provider=habit.provider,
        dialect=habit.dialect,
        outcome=outcome,
        error=error,
        status=status,
        streamed=bits & 8 == 0,
        tokens_in=tokens,
        tokens_out=tokens // 3 + 1 if status == 200 else 0,
        tokens_cached=tokens // 2 if bits & 48 == 0 else 0,
        estimated=habit.provider == "kimi-web",
        milliseconds=took,
        first_milliseconds=took // 3 if status == 200 else None,
        session=f"session-{bits >> 20 & 0xFFFF:012x}" if bits & 0x300 else None,
        end_user=f"user-{bits >> 12 & 0xFF}" if bits & 0x1C00 == 0 else None,
        dropped=0 if bits & 0x6000 else 3,
        passed_over="kimi-web=upstream_timeout" if bits & 0x7F0000 == 0 else None,
        action=("new", "continued", "continued", "replaced")[bits >> 24 & 3] if bits & 0x300 else "stateless",
        prompt_size=tokens * 2,
        prompt_limit=1000 if habit.provider == "kimi-web" else 131_072,
        prompt_in_tokens=habit.provider != "kimi-web",
        shortened=None if bits & 0x6000 else 1,
        waits=f"session={bits >> 26 & 0xF},queue={bits >> 30 & 0xFFF}" if bits & 0x700000 == 0 else None,
    )


def _hours(sums: dict[tuple[Any, ...], list[int]], now: int) -> dict[tuple[Any, ...], list[int]]:
    """The sums of hours that would still be there."""
    return {
        key: line
        for key, line in sums.items()
        if key[0] == "hour" and (key[1] == ALL_KEYS or key[2] >= now - now % HOUR - KEY_HOURS_KEPT)
    }


def _copy(connection: Connection, values: list[tuple[Any, ...]]) -> None:
    cursor: Any = connection.connection.cursor()
    with cursor, cursor.copy(f"COPY request ({COLUMNS}) FROM STDIN") as copy:
        for value in values:
            copy.write_row(value)


def _add_key(connection: Connection, number: int) -> None:
    secrets = (StoredSecret("sk-kimi-…", 0),)
    key = StoredKey(_key_id(number), f"key-{number}", _project(number), ("chat",), None, "", 0, secrets=secrets)
    add_key(connection, key, project_id=f"p_{number:011}", digest=f"{number:064x}")


def _key_id(number: int) -> str:
    # As random ids are: their order is not that of use.
    return f"k_{number * 7919 % 10_007:05}{number:06}"


def _project(number: int) -> str:
    return f"project-{number % PROJECTS}"
