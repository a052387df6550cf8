"""`main.py demo`: the gateway in front of a simulated site; needs no network and no settings."""

import argparse
import contextlib
import errno
import importlib
import logging
import os
import socket
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from app import __version__
from app.assembly.app import create_app
from app.cli.addresses import shown_host
from app.cli.demo_faults import SimulatedFaults
from app.cli.demo_key import data_folder, kept_key
from app.cli.serve import run_server
from app.providers.openai_compatible.presets import PRESETS, Preset
from app.settings import Settings, load_settings
from simulator.behaviour import Behaviour
from simulator.live import running

_SIMULATED_LATENCY = 0.4
_MOONSHOT_MODEL = "kimi-k2-0905-preview"
# What the simulated API does besides chats.
_OTHER_MODELS = ("text-embedding-3-small", "gpt-image-1", "whisper-1", "tts-1")


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit status."""
    given = load_settings(_env_file=None, auth_disabled=True)
    host = options.host or "127.0.0.1"
    port = given.cluster.nginx_port if options.port is None else options.port
    try:
        listener = _listen(host, port)
    except OSError as error:
        print(_cannot_listen(host, port, error), file=sys.stderr)
        return 1
    limit = given.site.context_max_length
    with listener, running(Behaviour(latency_s=_SIMULATED_LATENCY, char_limit=limit)) as site:
        key = given.access.api_keys[0] if given.access.api_keys else kept_key()
        settings = load_settings(
            _env_file=None,
            api_master_key=key,
            auth_disabled=False,
            chat_page_url=site.page_url,
            upstream_url=site.ajax_url,
            **simulated_upstreams(site.api_url),
            **_database(),
            log_format="pretty",
            log_level="INFO",
            api_host=host,
            api_port=listener.getsockname()[1],
        )
        address = f"http://{shown_host(host)}:{settings.listening.port}"
        banner = _Banner(address, key, limit, _console_link(settings, address))
        # Requests are worth a line each here, the steps of a start are not.
        app = create_app(settings, faults=SimulatedFaults(site.site))
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        # The port is open: whoever pastes the curl line before the server has started waits for it a moment.
        print(banner.text(), flush=True)
        return run_server(app, settings, listener)


def _database() -> dict[str, object]:
    """Where the demo keeps keys and calls, as settings: as the environment says, else beside its key, else nowhere."""
    if os.environ.get("DATABASE_URL"):
        return {}
    with contextlib.suppress(OSError, RuntimeError):
        folder = data_folder()
        folder.mkdir(parents=True, exist_ok=True)
        # Windows has no locks for the ledger's journal.
        if _has_locks() and os.access(folder, os.W_OK):
            return {"database_url": f"sqlite:///{folder}/gateway.db", "journal_dir": folder / "journal"}
    return {"database_url": "none"}


def _console_link(settings: Settings, address: str) -> str:
    """A link that signs in to the console; empty if there is none, for want of a database."""
    if not settings.database.enabled:
        return ""
    # Imported only now: SQLAlchemy is large, and a demo may go without a database.
    return importlib.import_module("app.cli.console_link").new_link(settings, address, only_first=False) or ""


def _has_locks() -> bool:
    try:
        importlib.import_module("fcntl")
    except ImportError:
        return False
    return True


def simulated_upstreams(api_url: str, presets: Mapping[str, Preset] = PRESETS) -> dict[str, object]:
    """Settings with which nothing that the environment names is asked, and a simulator stands in for Moonshot's API.

    Each model has one upstream: nothing is answered in another's place.
    """
    switches = [variable.lower() for preset in presets.values() for variable in preset.variables.values()]
    return {
        **dict.fromkeys(switches, ""),
        "providers_file": None,
        "providers": "",
        "model_routes": "",
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": api_url,
        "moonshot_models": ",".join((_MOONSHOT_MODEL, *_OTHER_MODELS)),
    }


def _listen(host: str, port: int) -> socket.socket:
    """Open the port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        # Python adds to the reason where it was met, which is said here already.
        reason = str(error.strerror or error).partition(" (while")[0]
        return f"The demo can't listen at {host}:{port}: {reason}. See --host and --port."
    return (
        f"Port {port} is in use, perhaps by another demo. Stop what uses it, or choose another port, "
        f"for example: --port {_next_free(host, port)}"
    )


def _next_free(host: str, port: int) -> int:
    """The first free port after one that is taken; 0, which stands for any, if there is none near."""
    for candidate in range(port + 1, min(port + 100, 65536)):
        with contextlib.suppress(OSError), _listen(host, candidate):
            return candidate
    return 0


@dataclass(frozen=True, slots=True)
class _Banner:
    """What is told at the start.

    Args:
        address: Scheme, host and port.
        limit: How long a message to the simulated site may be, in characters.
        console: A link that signs in to the console; empty for none.
    """

    address: str
    key: str
    limit: int
    console: str

    def text(self) -> str:
        base_url = f"{self.address}/v1"
        console = f"{self.console} (signs in once, within 15 minutes)" if self.console else "off, without a database"
        return textwrap.dedent(f"""\

            kimi-ai-2api {__version__} demo: the gateway, with a simulator in place of the Kimi site.

              Base URL    {base_url}
              API key     {self.key}
              Web page    {self.address}/
              Console     {console}

              Models      kimi                    the simulated site; a message has room for {self.limit:,} characters
                          {_MOONSHOT_MODEL}    a simulated API, with room for long conversations
                          {_OTHER_MODELS[0]}  its embeddings, and {", ".join(_OTHER_MODELS[1:])}

            Try it in another terminal:

              curl -N {base_url}/chat/completions \\
                -H "Authorization: Bearer {self.key}" -H "Content-Type: application/json" \\
                -d '{{"model": "kimi", "stream": true, "user": "me",
                     "messages": [{{"role": "user", "content": "Hello, my name is Ada."}}]}}'

            Then ask "What is my name?" with the same "user": the gateway remembers.
            Press Ctrl+C to stop.
            """)
