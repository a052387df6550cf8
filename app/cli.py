"""The commands: serve, demo, doctor, simulator."""

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app import doctor
from app.build import build_app
from app.cluster.nginx import NginxPolicy
from app.cluster.supervisor import ClusterError, ClusterPolicy, Supervisor, is_free, worker_command
from app.observe import logging as logs
from app.server import GracefulServer, allow_open_files
from app.settings import Settings, SettingsError, load_settings
from app.simulator.behaviour import Behaviour
from app.simulator.live import LiveSimulator, running, serve
from app.simulator.openai_api import API_PATH
from app.simulator.site import Site

# Longer than any proxy in front keeps an idle connection: else a request can meet one that is just being closed.
_KEEP_ALIVE_SECONDS = 75
_SIMULATED_LATENCY = 0.4
_MARGIN_SECONDS = 10
_ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit status."""
    options = _parser().parse_args(arguments)
    commands = {"serve": _serve, "cluster": _cluster, "demo": _demo, "doctor": _doctor, "simulator": _simulator}
    try:
        return commands[options.command or "serve"](options)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except SettingsError as error:
        print(f"The settings are wrong; see .env.example.\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="main.py", description="The Kimi web chat as the OpenAI API.")
    parser.set_defaults(host=None, port=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, purpose in (
        ("serve", "run the gateway (the default)"),
        ("demo", "run the gateway with a simulated site; needs no network and no settings"),
        ("simulator", "run the simulated site alone"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--host", help="address to listen on")
        command.add_argument("--port", type=int, help="port to listen on")
    commands.add_parser("cluster", help="run several workers behind a local nginx")
    check = commands.add_parser("doctor", help="check settings, site, nonce and one message")
    check.add_argument(
        "--limit", action="store_true", help="also find out how long a message may be (several messages)"
    )
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = load_settings(**_given(options))
    return _run(build_app(settings), settings)


def _cluster(_: argparse.Namespace) -> int:
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format, worker_id="supervisor")
    policy = ClusterPolicy(
        workers=settings.cluster_workers,
        first_port=settings.cluster_first_port,
        grace=settings.drain_seconds + settings.shutdown_grace_seconds,
        nginx=NginxPolicy(
            listen=f"{settings.bind_address}:{settings.nginx_port}",
            sticky=settings.sticky,
            max_body_bytes=settings.max_body_bytes,
            # A whole answer may be silent for as long as queue and exchange take together.
            read_timeout=settings.upstream_queue_timeout + settings.request_timeout + _MARGIN_SECONDS,
            request_rate=settings.request_rate,
            request_burst=settings.request_burst,
            connections_per_key=settings.connections_per_key,
            certificate=settings.tls_certificate,
            certificate_key=settings.tls_certificate_key,
        ),
        template=(_ROOT / "nginx.conf").read_text(encoding="utf-8"),
    )
    supervisor = Supervisor(policy, worker_command=worker_command(_ROOT / "main.py"), environment=os.environ)
    return asyncio.run(supervisor.run())


def _demo(options: argparse.Namespace) -> int:
    given = load_settings(_env_file=None, auth_disabled=True)
    port = given.nginx_port if options.port is None else options.port
    if not is_free(f"{options.host or '127.0.0.1'}:{port}"):
        print(f"Port {port} is taken: choose another one with --port.", file=sys.stderr)
        return 1
    with running(Behaviour(latency_s=_SIMULATED_LATENCY)) as site:
        key = given.api_keys[0] if given.api_keys else f"sk-demo-{secrets.token_hex(12)}"
        settings = load_settings(
            _env_file=None,
            api_master_key=key,
            auth_disabled=False,
            chat_page_url=site.page_url,
            upstream_url=site.ajax_url,
            **_simulated_upstreams(site, given.default_model),
            log_format="pretty",
            log_level="WARNING",
            api_host=options.host or "127.0.0.1",
            api_port=port,
        )
        print(_demo_text(f"http://localhost:{settings.api_port}/v1", key, site.base_url), flush=True)
        return _run(build_app(settings), settings)


def _simulated_upstreams(site: LiveSimulator, default_model: str) -> dict[str, object]:
    """Nothing that the environment names may be asked; in the place of Moonshot's API stands the simulator's."""
    switches = [name for name in Settings.model_fields if name.endswith(("_api_key", "_base_url"))]
    return {
        **dict.fromkeys(switches, ""),
        "providers_file": None,
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": site.api_url,
        "model_routes": f"kimi=kimi-web/{default_model}>moonshot/kimi-k2-0905-preview",
    }


def _doctor(options: argparse.Namespace) -> int:
    return asyncio.run(doctor.run(load_settings(), find_limit=options.limit))


def _simulator(options: argparse.Namespace) -> int:
    host, port = options.host or "127.0.0.1", 8090 if options.port is None else options.port
    print(f"CHAT_PAGE_URL=http://{host}:{port}/chat/")
    print(f"MOONSHOT_BASE_URL=http://{host}:{port}{API_PATH}\nMOONSHOT_API_KEY=sk-simulated", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve(Site(), host, port))
    return 0


def _given(options: argparse.Namespace) -> dict[str, object]:
    values = {"api_host": options.host, "api_port": options.port}
    return {name: value for name, value in values.items() if value is not None}


def _run(app: FastAPI, settings: Settings) -> int:
    allow_open_files()
    server = GracefulServer(
        uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_grace_seconds,
            forwarded_allow_ips=settings.forwarded_allow_ips,
        ),
        app.state.drain,
        settings.drain_seconds,
    )
    try:
        server.run()
    finally:
        if not server.started:
            where = f"{settings.api_host}:{settings.api_port} (API_HOST, API_PORT)"
            print(f"The gateway could not start at {where}; the lines above say why.", file=sys.stderr)
    return 0 if server.started else 1


def _demo_text(base_url: str, key: str, site: str) -> str:
    return textwrap.dedent(f"""\
        kimi-ai-2api demo: the gateway, with a simulator in place of the Kimi site ({site}). Ctrl+C ends it.

          base URL  {base_url}
          API key   {key}

        Try it in another terminal:

          curl -N {base_url}/chat/completions \\
            -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
            -d '{{"stream": true, "user": "me", "messages": [{{"role": "user", "content": "Hello, my name is Ada."}}]}}'

        Then ask "What is my name?" with the same "user": the session remembers.
        A message too long for the site is answered by a simulated second upstream (X-Provider: moonshot).
        """)
