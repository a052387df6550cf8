"""`main.py cluster`: several workers behind a local nginx."""

import argparse
import asyncio
import importlib
import os
import sys

from app.cli.addresses import shown_host
from app.cli.nginx import NginxPolicy
from app.cli.reloading import PACKAGED_TEMPLATE, ROOT, main_file
from app.cli.supervisor import ClusterError, ClusterPolicy, Supervisor
from app.observe import logging as logs
from app.settings import Settings, load_settings

_MARGIN_SECONDS = 10


def run(_: argparse.Namespace) -> int:
    """Keep the cluster running until told to stop, and return the exit status."""
    if sys.platform == "win32":
        print("The cluster needs nginx and signals that Windows doesn't have. Use Docker or WSL.", file=sys.stderr)
        return 1
    settings = load_settings()
    logs.configure(settings.logs.level, settings.logs.format, worker_id="supervisor")
    try:
        supervisor = Supervisor(
            _policy(settings),
            main=main_file(),
            environment=os.environ,
            policy_now=lambda: _policy(load_settings()),
        )
        _tell_console(settings)
        return asyncio.run(supervisor.run())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _tell_console(settings: Settings) -> None:
    """Show a terminal a link to the console, as long as nobody has signed in. To a log the workers speak."""
    cluster = settings.cluster
    if settings.database.enabled and sys.stdout.isatty():
        scheme = "https" if cluster.tls_certificate else "http"
        address = f"{scheme}://{shown_host(cluster.bind_address)}:{cluster.nginx_port}"
        # Imported only now: SQLAlchemy is large, and not every gateway has a database.
        importlib.import_module("app.cli.console_link").tell_first_link(settings, address)


def template() -> str:
    """The nginx template."""
    file = PACKAGED_TEMPLATE if PACKAGED_TEMPLATE.is_file() else ROOT / "nginx.conf"
    return file.read_text(encoding="utf-8")


def _policy(settings: Settings) -> ClusterPolicy:
    cluster, listening, traffic = settings.cluster, settings.listening, settings.traffic
    return ClusterPolicy(
        workers=cluster.workers,
        first_port=cluster.first_port,
        grace=listening.drain + listening.shutdown_grace,
        nginx=NginxPolicy(
            listen=f"{cluster.bind_address}:{cluster.nginx_port}",
            sticky=cluster.sticky,
            max_body_bytes=listening.max_body_bytes,
            max_upload_bytes=listening.max_upload_bytes,
            # A whole answer may be silent for as long as queue and exchange take together.
            read_timeout=traffic.queue_timeout + traffic.request_timeout + _MARGIN_SECONDS,
            request_rate=cluster.request_rate,
            request_burst=cluster.request_burst,
            connections_per_key=cluster.connections_per_key,
            address_rate=cluster.address_rate,
            address_burst=cluster.address_burst,
            connections_per_address=cluster.connections_per_address,
            admin_networks=cluster.admin_network_list,
            certificate=cluster.tls_certificate,
            certificate_key=cluster.tls_certificate_key,
        ),
        template=template(),
    )
