"""`main.py limits try`: what limits would have refused of the calls in the ledger."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.cli.database_access import print_json
from app.cli.limit_scopes import NamedScope, read_scope, warn_of_dollars
from app.domain.counting import counted
from app.domain.durations import span
from app.domain.granting import Scope
from app.domain.limits import Limit, texts_of
from app.limits.replay import Replay
from app.limits.trial import STRETCH
from app.settings import Settings
from app.storage.clock import now
from app.storage.database import Database

_LONGEST_SECONDS = 60.0


def add_trial_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what only this action takes."""
    parser.add_argument("--last", type=_span, default="7d", help="of which time, such as 24h or 30d (default: 7d)")


def run_trial(database: Database, settings: Settings, options: argparse.Namespace) -> int:
    """Put the calls of the past through limits, say what they would have refused, and return the exit status."""
    until = now()
    words, seconds = options.last
    with database.transaction(reads=True) as connection:
        named = read_scope(connection, settings, options.scope, options.project)
        warn_of_dollars(connection, options.limits)
    replay = _replayed(database, settings, named.scope, options.limits, until - round(seconds * 1000), until)
    if options.json:
        print_json(_plain(replay, named, options.limits))
    else:
        for line in _lines(replay, settings, named, options.limits, words):
            print(line)
    return 0


def _span(text: str) -> tuple[str, float]:
    try:
        return text.strip(), span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _replayed(
    database: Database, settings: Settings, scope: Scope, limits: Sequence[Limit], since: int, until: int
) -> Replay:
    """Read the calls, a part at a time and each in a transaction of its own, and put them through."""
    zone, wait = settings.limits.zone, settings.limits.wait
    with database.transaction(reads=True) as connection:
        replay = Replay(connection, scope, limits, zone, wait, since=since, until=until, seconds=_LONGEST_SECONDS)
    is_done = False
    while not is_done:
        with database.transaction(reads=True) as connection:
            is_done = replay.go_on(connection)
    return replay


def _lines(replay: Replay, settings: Settings, named: NamedScope, limits: Sequence[Limit], words: str) -> list[str]:
    trial, zone = replay.trial, settings.limits.zone

    def day_and_time(milliseconds: int) -> str:
        return datetime.fromtimestamp(milliseconds / 1000, zone).strftime("%a %Y-%m-%d %H:%M")

    text = texts_of(tuple(limits))
    verb = "refused" if named.scope.kind != "upstream" else "sent elsewhere, or let wait,"
    refused = f"{trial.refused:,}" if trial.refused else "none"
    line = f"{named.name}: {text} would have {verb} {refused} of {counted(trial.calls, 'request')} of the last {words}"
    if trial.by_time:
        worst, count = max(trial.by_time.items(), key=lambda item: (item[1], -item[0]))
        minutes = STRETCH // 60_000
        line += f", most on {day_and_time(worst)} ({count:,} within {minutes} minutes)"
    lines = [f"{line}."]
    if len(limits) > 1:
        lines += [f"  {limit.text}: {count:,}" for limit, count in trial.by_limit.most_common()]
    if replay.refused_before:
        lines.append(
            f"Not counted: {counted(replay.refused_before, 'request')} that limits had refused then; nobody knows "
            "what they would have used."
        )
    if replay.deleted_until is not None:
        lines.append(
            f"Rows from before {day_and_time(replay.deleted_until)} have been deleted (REQUESTS_KEPT_DAYS, "
            "DATABASE_MAX_MB): what came earlier isn't counted."
        )
    if replay.stopped_at is not None:
        lines.append(
            f"Stopped after {_LONGEST_SECONDS:.0f} s at {day_and_time(replay.stopped_at)}: what came later isn't "
            "counted. Name a shorter --last."
        )
    return lines


def _plain(replay: Replay, named: NamedScope, limits: Sequence[Limit]) -> dict[str, Any]:
    trial = replay.trial
    return {
        "scope": named.scope.text,
        "limits": texts_of(tuple(limits)),
        "requests": trial.calls,
        "refused": trial.refused,
        "by_limit": {limit.text: trial.by_limit[limit] for limit in limits},
        "by_time": {str(at): count for at, count in sorted(trial.by_time.items())},
        "refused_then": replay.refused_before,
        "deleted_until": replay.deleted_until,
        "stopped_at": replay.stopped_at,
    }
