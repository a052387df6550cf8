"""The command line of `main.py`, and of `kimi-ai-2api` where that is installed."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from app import __version__
from app.cli.imports import light_imports
from app.cli.output import accept_any_output, reader_left
from app.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit status."""
    _check_texts(sys.argv[1:] if arguments is None else arguments)
    options, rest = _parser().parse_known_args(arguments)
    # Imported only now: a gateway that serves has no use for what the other commands need.
    with light_imports():
        command = importlib.import_module(f"app.cli.{(options.command or 'serve').replace('-', '_')}")
    prog = f"main.py {options.command}" if options.command else "main.py"
    parser = argparse.ArgumentParser(prog=prog, description=command.__doc__)
    if options.declares_more:
        command.add_arguments(parser)
    options = parser.parse_args(rest, options)
    accept_any_output()
    try:
        status: int = command.run(options)
        print(end="", flush=True)
    except BrokenPipeError:
        return reader_left()
    except SettingsError as error:
        print(f"The settings are wrong; see .env.example.\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _check_texts(arguments: Sequence[str]) -> None:
    """Refuse arguments that could neither be stored nor shown."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            _parser().error(f"{argument!a} is not UTF-8")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) > 65535:
        raise argparse.ArgumentTypeError("must be a number between 0 and 65535")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The Kimi web chat as the OpenAI API.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(host=None, port=None, declares_more=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, purpose in (
        ("serve", "run the gateway (the default)"),
        ("demo", "run the gateway with a simulated site; needs no network and no settings"),
        ("simulator", "run the simulated site alone"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--host", help="address to listen on")
        command.add_argument("--port", type=_port, help="port to listen on; 0 for any free one")
    commands.add_parser("cluster", help="run several workers behind a local nginx")
    for name, purpose in (
        ("keys", "give API keys out, and take them back"),
        ("limits", "say how much keys, projects, upstreams and the gateway may use"),
        ("usage", "say what was used, by whom and of what"),
        ("requests", "show the latest calls"),
        ("recordings", "keep what a key's calls say, for a while, and read it"),
        ("prices", "read and show what models cost"),
        ("upstreams", "add, try, change and remove upstreams while the gateway runs"),
        ("routes", "name models, and say who answers them"),
        ("database", "look after the database of keys and calls"),
        ("people", "say who may sign in to the console"),
        ("console-link", "print a link that signs in to the console, once"),
    ):
        # Its arguments are declared by its module, which is imported if it is the command that was called.
        commands.add_parser(name, help=purpose, add_help=False).set_defaults(declares_more=True)
    check = commands.add_parser("doctor", help="check settings, site, nonce and one message")
    check.add_argument("--settings", action="store_true", help="check the settings only; ask no upstream")
    check.add_argument(
        "--limit", action="store_true", help="also find out how long a message may be (several messages)"
    )
    return parser
