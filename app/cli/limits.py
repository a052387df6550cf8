"""`main.py limits`: how much keys, projects, upstreams and the gateway may use, and who uses how much."""

import argparse
import time
from typing import Any

from app.cli.database_access import command_settings, open_database, operator, print_json, print_table, told
from app.cli.limit_scopes import (
    HELP,
    NamedScope,
    limits_in,
    limits_or_default,
    names_of,
    read_scope,
    stored_book,
    warn_of_dollars,
)
from app.cli.limit_trial import add_trial_arguments, run_trial
from app.domain.granting import LimitState
from app.domain.limits import Limit, amount_in_words, read_limits, texts_of
from app.limits.overview import LimitUse, figure, limits_of, use_of
from app.limits.refusals import in_words
from app.limits.stored import change_limits
from app.settings import Settings
from app.storage.database import Connection, Database
from app.storage.limits import states_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show all limits that were set, and those of the settings")
    actions.add_parser("show", help="show how much of each limit is used, and which worker holds how much")
    change = actions.add_parser("set", help="set limits; within two seconds they hold on every worker")
    actions.add_parser("unset", help="let the limits of the settings hold again")
    trial = actions.add_parser("try", help="say what limits would have refused; nothing is changed")
    for action, subparser in actions.choices.items():
        if action != "list":
            subparser.add_argument("scope", metavar="SCOPE", help=HELP)
            subparser.add_argument("--project", help="the project of the key's name")
        if action in ("list", "show", "try"):
            subparser.add_argument("--json", action="store_true", help="print JSON")
    texts = "such as '60 requests/minute, 5 at once, $10/month for kimi*'"
    change.add_argument(
        "limits", type=limits_or_default, help=f"{texts}; `none` for no limits, `default` for those of the settings"
    )
    trial.add_argument("limits", type=limits_in, help=texts)
    add_trial_arguments(trial)


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _done(options: argparse.Namespace) -> int:
    settings = command_settings()
    with open_database(may_make=options.action == "set") as database:
        if options.action == "try":
            return run_trial(database, settings, options)
        with database.transaction(reads=True) as connection:
            if options.action == "list":
                return _listed(connection, settings, as_json=options.json)
            named = read_scope(connection, settings, options.scope, options.project)
            if options.action == "show":
                return _shown(database, connection, settings, named, as_json=options.json)
        with database.transaction() as connection:
            limits = options.limits if options.action == "set" else None
            change_limits(database, connection, operator(), named.scope, limits)
            warn_of_dollars(connection, limits or ())
            stored = stored_book(connection, settings)
    print(f"{named.name}: {stored.text(named.scope)}")
    return 0


def _listed(connection: Connection, settings: Settings, *, as_json: bool) -> int:
    stored = stored_book(connection, settings)
    scopes = [*stored.set_scopes, *(scope for scope in settings.limits.fixed if scope not in stored.set_scopes)]
    rows = [
        {
            "scope": named.scope.text,
            "name": named.name,
            "limits": texts_of(stored.book.of(named.scope)),
            "from": stored.origin(named.scope),
        }
        for named in names_of(connection, sorted(scopes, key=lambda scope: scope.text))
        if stored.origin(named.scope)
    ]
    default = read_limits(settings.limits.default)
    if default:
        others = {"scope": "key:*", "name": "each other key", "limits": texts_of(default), "from": "DEFAULT_LIMITS"}
        rows.append(others)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(("SCOPE", "LIMITS", "FROM"), ((row["name"], row["limits"], row["from"]) for row in rows))
    else:
        print("There are no limits yet; set some with: python main.py limits set key:NAME '60 requests/minute'")
    return 0


def _shown(database: Database, connection: Connection, settings: Settings, named: NamedScope, *, as_json: bool) -> int:
    stored = stored_book(connection, settings)
    epoch = time.time()
    limits = limits_of(stored.book, [named.scope], epoch, settings.limits.zone)
    states = states_of(database, connection, limits)
    uses = [use_of(one, state, epoch) for one, state in zip(limits, states, strict=True)]
    origin = stored.origin(named.scope)
    if as_json:
        shown = [_plain(use, state, epoch) for use, state in zip(uses, states, strict=True)]
        print_json({"scope": named.scope.text, "name": named.name, "from": origin, "limits": shown})
        return 0
    if not limits:
        print(f"{named.name}: {stored.text(named.scope)}")
        return 0
    print(named.name if origin == "set" else f"{named.name}, by {origin}")
    print_table(
        ("LIMIT", "USED", "FREE", "RESETS", "HELD BY WORKERS"),
        (
            (
                use.limit.text,
                _amount(use.used, use.limit),
                _amount(use.free, use.limit),
                "" if use.reset is None else f"in {in_words(use.reset)}" if use.reset else "",
                _held(use.limit, state),
            )
            for use, state in zip(uses, states, strict=True)
        ),
    )
    return 0


def _plain(use: LimitUse, state: LimitState, epoch: float) -> dict[str, Any]:
    limit = use.limit
    measure = limit.measure
    return {
        "limit": limit.text,
        "measure": measure,
        "window": limit.window or None,
        "models": limit.pattern or None,
        "amount": figure(limit.amount, measure),
        "used": figure(use.used, measure),
        "free": figure(use.free, measure),
        "resets_in": None if use.reset is None else round(use.reset, 3),
        "resets_at": None if use.reset is None else round(epoch + use.reset),
        "workers": [
            {"worker": holding.worker, "machine": holding.machine, "held": figure(holding.held, measure)}
            for holding in state.holdings
        ],
    }


def _held(limit: Limit, state: LimitState) -> str:
    return ", ".join(
        f"{_amount(holding.held, limit)} {holding.worker} on {holding.machine}" for holding in state.holdings
    )


def _amount(amount: int, limit: Limit) -> str:
    return amount_in_words(amount, "dollars") if limit.measure == "dollars" else f"{amount:,}"
