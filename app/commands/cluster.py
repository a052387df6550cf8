"""`main.py cluster`: several workers behind a local nginx."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from app.cluster.nginx import NginxPolicy
from app.cluster.supervisor import ClusterError, ClusterPolicy, Supervisor, worker_command
from app.observe import logging as logs
from app.settings import Settings, load_settings

_MARGIN_SECONDS = 10
_ROOT = Path(__file__).parents[2]


def run(_: argparse.Namespace) -> int:
    """Keep the cluster running until told to stop; returns the exit status."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format, worker_id="supervisor")
    command = worker_command(_ROOT / "main.py")
    try:
        supervisor = Supervisor(_policy(settings), worker_command=command, environment=os.environ)
        return asyncio.run(supervisor.run())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _policy(settings: Settings) -> ClusterPolicy:
    return ClusterPolicy(
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
