"""Fills in the nginx template that docker compose and the local cluster share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, where there is no cluster
    resource = None  # type: ignore[assignment]

_MOST_FILES = 65536
_CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")


@dataclass(frozen=True, slots=True)
class NginxPolicy:
    """What an operator decides about nginx.

    Args:
        listen: Address and port, as in `127.0.0.1:8088`.
        sticky: `ip` or `session`.
        max_body_bytes: The largest request body.
        max_upload_bytes: The largest one with files.
        read_timeout: Seconds of a worker's silence after which nginx gives up; above what a request may take.
        request_rate: Requests with one key, as in `100r/s`.
        request_burst: How many more may come at once.
        connections_per_key: Requests with one key at the same time.
        address_rate, address_burst, connections_per_address: The same for one client, whatever its keys.
        admin_networks: Who may reach the admin API: networks, `*` for everybody; without any, nobody.
        certificate, certificate_key: TLS files; None for plain HTTP.
    """

    listen: str
    sticky: str
    max_body_bytes: int
    max_upload_bytes: int
    read_timeout: float
    request_rate: str
    request_burst: int
    connections_per_key: int
    address_rate: str
    address_burst: int
    connections_per_address: int
    admin_networks: Sequence[str]
    certificate: Path | None = None
    certificate_key: Path | None = None


def render(template: str, policy: NginxPolicy, workers: Sequence[str], run_dir: Path) -> str:
    """The configuration for workers at these addresses.

    Raises:
        KeyError: The template names a variable that nobody fills in.
    """
    # On this machine a worker that is gone refuses at once: avoiding it for a while saves nothing, and it gets its
    # clients back as soon as it is there again.
    servers = "\n        ".join(f"server {worker} max_fails=0;" for worker in workers)
    with_tls = policy.certificate is not None and policy.certificate_key is not None
    values = {
        "RUN_DIR": str(run_dir),
        "OPEN_FILES": str(min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        "ACCESS_LOG": "/dev/stdout",
        "LISTEN": f"{policy.listen} ssl" if with_tls else policy.listen,
        "STICKY": policy.sticky,
        "WORKERS": servers,
        "WORKERS_BY_ADDRESS": servers,
        "MAX_BODY_BYTES": str(policy.max_body_bytes),
        "MAX_UPLOAD_BYTES": str(policy.max_upload_bytes),
        "READ_TIMEOUT": f"{policy.read_timeout:g}s",
        "REQUEST_RATE": policy.request_rate,
        "REQUEST_BURST": str(policy.request_burst),
        "CONNECTIONS_PER_KEY": str(policy.connections_per_key),
        "ADDRESS_RATE": policy.address_rate,
        "ADDRESS_BURST": str(policy.address_burst),
        "CONNECTIONS_PER_ADDRESS": str(policy.connections_per_address),
        "ADMIN_ACCESS": _access(policy.admin_networks),
        "RESOLVER": "",
        "KEEPALIVE": "",
        "REAL_IP": "",
        "TLS": _tls(policy) if with_tls else "",
        "SECURITY_HEADERS": "add_header strict-transport-security max-age=31536000 always;" if with_tls else "",
    }
    return _VARIABLE.sub(lambda match: values[match[1]], template)


def _access(networks: Sequence[str]) -> str:
    """Whom nginx lets in, as deploy/nginx/workers.sh says it, too."""
    allowed = [f"allow {'all' if network == '*' else network}; " for network in networks]
    return f"{''.join(allowed)}deny all;"


def _tls(policy: NginxPolicy) -> str:
    return (
        f"ssl_certificate {policy.certificate}; ssl_certificate_key {policy.certificate_key}; "
        f"ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {_CIPHERS}; ssl_session_cache shared:tls:10m;"
    )
