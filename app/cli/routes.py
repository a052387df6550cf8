"""`main.py routes`: names of your own for models, and who answers them. All workers follow within two seconds."""

import argparse

from app.cli.database_access import CommandFault, operator, print_json, print_table, told
from app.cli.upstreams import upstreams_of_settings
from app.domain.caller import Caller
from app.domain.errors import ModelNotFound
from app.keys.administration import only_key
from app.keys.keyring import caller_of
from app.providers.entries import route_to
from app.providers.registry import ModelRoute
from app.providers.stored import UpstreamAdministration
from app.storage.database import Connection
from app.storage.upstreams import list_routes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show all routes, those of the settings, too")
    listing.add_argument("--json", action="store_true", help="print JSON")
    setting = actions.add_parser("set", help="set a route")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument("targets", metavar="TARGETS", help="'first>second', or with weights 'some*3|others*1'")
    actions.add_parser("remove", help="remove a route").add_argument("name", metavar="NAME")
    trial = actions.add_parser("try", help="say who would answer a model, and who if that one can't")
    trial.add_argument("model", metavar="MODEL")
    trial.add_argument("--key", help="asked with this key (its name or id)")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with upstreams_of_settings(may_make=options.action == "set") as (upstreams, connection):
        match options.action:
            case "list":
                return _list(upstreams, connection, as_json=options.json)
            case "try":
                return _try(upstreams, connection, options.model, options.key)
            case "set":
                try:
                    route = ModelRoute.read(options.targets)
                except ValueError as error:
                    raise CommandFault(f"TARGETS: {error}.") from None
                upstreams.set_route(connection, operator(), options.name, route.given)
                done = "Set."
            case _:
                upstreams.remove_route(connection, operator(), options.name)
                done = "Removed."
    print(f"{done} Workers that run follow within two seconds.")
    return 0


def _list(upstreams: UpstreamAdministration, connection: Connection, *, as_json: bool) -> int:
    catalog = upstreams.catalog
    stored = {route.name: route_to(route.targets) for route in list_routes(connection)}
    free = {name: route for name, route in stored.items() if not catalog.is_fixed(name)}
    rows = [
        {"name": name, "targets": route.text, "from": "database" if name in free else "settings"}
        for name, route in {**catalog.registry.routes, **free}.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(("NAME", "TARGETS", "FROM"), ((row["name"], row["targets"], row["from"]) for row in rows))
    return 0


def _try(upstreams: UpstreamAdministration, connection: Connection, model: str, key: str | None) -> int:
    caller = Caller("") if key is None else caller_of(only_key(connection, key))
    registry = upstreams.registry_with(connection, {route.name: route.targets for route in list_routes(connection)})
    try:
        targets = registry.resolve(model, caller=caller)
    except ModelNotFound as error:
        raise CommandFault(error.message) from None
    for place, target in enumerate(targets, start=1):
        print(f"{place}. {target.description}")
    route = registry.routes.get(model)
    if route is not None and route.weights is not None:
        print("The order is drawn anew for each request, by the weights.")
    return 0
