"""`main.py recordings`: keeps what a key's calls say, for a while, and shows it."""

import argparse
from typing import Any

import msgspec

from app.cli.database_access import (
    CommandFault,
    command_settings,
    open_database,
    operator,
    print_json,
    print_table,
    time_text,
    told,
)
from app.cli.limit_scopes import read_scope
from app.cli.output import printable
from app.domain.counting import counted
from app.domain.durations import span
from app.recording.administration import (
    RecordingFault,
    read_texts,
    remove_recording,
    start_recording,
    stop_recording,
)
from app.storage.database import Connection, Database
from app.storage.recordings import RecordedText, Recording, count_of_texts, list_recordings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("start", help="record a key; within two seconds every worker does")
    start.add_argument(
        "--for", dest="seconds", type=_span, default=3600.0, metavar="SPAN", help="15m to 24h (default: 1h)"
    )
    actions.add_parser("stop", help="stop recording a key; what was recorded stays for seven days at most")
    actions.add_parser("delete", help="stop recording a key, and delete its texts")
    actions.add_parser("list", help="show whose texts are recorded, or were")
    show = actions.add_parser("show", help="show the texts of a request; the log of changes will say so")
    show.add_argument("request", metavar="REQUEST_ID", help="the X-Request-ID of its answer")
    for action, subparser in actions.choices.items():
        subparser.add_argument("--json", action="store_true", help="print JSON")
        if action not in ("list", "show"):
            subparser.add_argument("key", help="its id or name; of a key of API_MASTER_KEY, its id")
            subparser.add_argument("--project", help="the project of the name")


def run(options: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    return told(lambda: _done(options))


def _done(options: argparse.Namespace) -> int:
    with open_database() as database:
        try:
            if options.action == "list":
                return _listed(database, as_json=options.json)
            if options.action == "show":
                return _shown(database, options.request, as_json=options.json)
            with database.transaction() as connection:
                return _changed(database, connection, options)
        except RecordingFault as fault:
            raise CommandFault(str(fault)) from None


def _changed(database: Database, connection: Connection, options: argparse.Namespace) -> int:
    key_id = read_scope(connection, command_settings(), f"key:{options.key}", options.project).scope.name
    match options.action:
        case "start":
            recording = start_recording(database, connection, operator(), key_id, options.seconds)
        case "stop":
            recording = stop_recording(database, connection, operator(), key_id)
        case _:
            count = remove_recording(database, connection, operator(), key_id)
            if options.json:
                print_json({"key_id": key_id, "texts": count})
            else:
                print(f"The texts of {counted(count, 'call')} were deleted.")
            return 0
    if options.json:
        print_json(_plain(connection, recording))
    else:
        what = "is recorded until" if recording.is_running else "was recorded until"
        print(f"{recording.key_name} ({key_id}) {what} {time_text(recording.until)} UTC.")
    return 0


def _listed(database: Database, *, as_json: bool) -> int:
    with database.transaction(reads=True) as connection:
        recordings = list_recordings(connection)
        shown = [_plain(connection, recording) for recording in recordings]
    if as_json:
        print_json(shown)
    elif shown:
        print_table(
            ("ID", "KEY", "STATE", "SINCE", "UNTIL", "STARTED BY", "CALLS"),
            (
                (
                    one["key_id"],
                    one["key_name"],
                    "running" if one["running"] else "ended",
                    time_text(one["started_at"]),
                    time_text(one["until"]),
                    one["started_by"],
                    one["texts"],
                )
                for one in shown
            ),
        )
    else:
        print("Nothing is recorded; start with: python main.py recordings start KEY --for 1h")
    return 0


def _shown(database: Database, request_id: str, *, as_json: bool) -> int:
    with database.transaction() as connection:
        texts = read_texts(connection, operator(), request_id)
    if not texts:
        raise CommandFault("No texts of such a request were recorded, or they have been deleted.")
    if as_json:
        print_json([msgspec.to_builtins(text) for text in texts])
        return 0
    for text in texts:
        print(f"{text.request_id}, key {text.key_id}, {time_text(text.at)} UTC")
        for name, words in _parts(text):
            print(f"--- {name}{' (cut)' if name in text.cut else ''}")
            print(printable(words))
    return 0


def _parts(text: RecordedText) -> list[tuple[str, str]]:
    sent = [] if text.sent is None else [("sent", text.sent)]
    return [("asked", text.asked), *sent, ("answered", text.answered)]


def _plain(connection: Connection, recording: Recording) -> dict[str, Any]:
    counts = count_of_texts(connection, recording.key_id)
    return {
        **msgspec.to_builtins(recording),
        "running": recording.is_running,
        "texts": counts.get(recording.key_id, 0),
    }


def _span(text: str) -> float:
    try:
        return span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
