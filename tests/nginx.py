"""nginx's template, and what an operator who decides nothing gets."""

from pathlib import Path

from app.cli.nginx import NginxPolicy

TEMPLATE = (Path(__file__).parent.parent / "nginx.conf").read_text(encoding="utf-8")


def policy(sticky: str, certificate: Path | None = None, key: Path | None = None) -> NginxPolicy:
    """The defaults, on a port that nobody listens on."""
    return NginxPolicy(
        listen="127.0.0.1:18989",
        sticky=sticky,
        max_body_bytes=1_048_576,
        max_upload_bytes=2_097_152,
        read_timeout=190,
        request_rate="100r/s",
        request_burst=200,
        connections_per_key=1000,
        address_rate="500r/s",
        address_burst=1000,
        connections_per_address=5000,
        admin_networks=["127.0.0.0/8", "10.0.0.0/8"],
        certificate=certificate,
        certificate_key=key,
    )
