"""`main.py serve`: the gateway."""

import argparse
import asyncio
import importlib
import os
import socket
import sys
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from app.assembly.app import create_app
from app.cli.addresses import shown_host
from app.cli.connections import ConnectionLimits, HttpProtocol
from app.cli.imports import light_imports
from app.cli.reloading import inherited_socket, main_file, settings_fault, start_anew
from app.cli.server import GracefulServer, allow_open_files, most_connections
from app.settings import Settings, load_settings

# Longer than any proxy in front keeps an idle connection: else a request can meet one that is just being closed.
_KEEP_ALIVE_SECONDS = 75


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit status."""
    given = {"api_host": options.host, "api_port": options.port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    with light_imports():
        app = create_app(settings)
        prepare_database(settings)
    listening = settings.listening
    if listening.port:
        tell_console(settings, f"http://{shown_host(listening.host)}:{listening.port}")
    return run_server(app, settings, inherited_socket(), can_reload=True)


def prepare_database(settings: Settings) -> None:
    """Bring the database's tables up to date before anything is served. One that is away is looked for later.

    Raises:
        SettingsError: It is there, and can't be used.
    """
    if settings.database.enabled:
        # Imported only now: SQLAlchemy is large, and not every gateway has a database.
        importlib.import_module("app.assembly.database").prepare_at_start(settings.database)


def tell_console(settings: Settings, address: str) -> None:
    """Show a link to the console, as long as nobody has signed in there."""
    if settings.database.enabled:
        console_link = importlib.import_module("app.cli.console_link")  # only now: as above
        # A cluster's workers have names, and it speaks for them.
        console_link.tell_first_link(settings, address, may_print=not settings.logs.worker_id)


def run_server(
    app: FastAPI, settings: Settings, listener: socket.socket | None = None, *, can_reload: bool = False
) -> int:
    """Serve an app until told to stop, and return the exit status.

    Args:
        listener: An open socket to listen at, instead of the settings' address.
        can_reload: Whether SIGHUP puts a process with new settings in the place of this one.
    """
    listening = settings.listening
    limits = ConnectionLimits(
        client_timeout=listening.client_timeout,
        write_timeout=settings.streams.write_timeout,
        most=most_connections(allow_open_files()),
    )
    server = GracefulServer(
        uvicorn.Config(
            app,
            host=listening.host,
            port=listening.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=listening.shutdown_grace,
            # Nothing asks for a client's address or scheme, and each request would have its headers read for them.
            proxy_headers=False,
            ws="none",  # else it loads a package for WebSockets where one happens to be installed
            http=cast("type[asyncio.Protocol]", partial(HttpProtocol, limits=limits)),
        ),
        app.state.drain,
        listening.drain,
        limits.most,
        settings_fault=partial(settings_fault, main_file(), os.environ) if can_reload else None,
    )
    try:
        server.run(None if listener is None else [listener])
    finally:
        if not server.started:
            where = f"{listening.host}:{listening.port} (API_HOST, API_PORT)"
            print(f"The gateway could not start at {where}; the lines above say why.", file=sys.stderr)
    if server.kept is not None:
        start_anew(server.kept)
    return 0 if server.started else 1
