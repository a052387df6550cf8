"""How the gateway's processes run: where they listen, several of them behind nginx, what they log."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, SecretStr, field_validator, model_validator

from app.settings.group import Accepts, Bytes, OptionalHttpUrl, Seconds, SettingsGroup, WholeSeconds, setting

# nginx refuses more.
_MOST_CONNECTIONS = 65535


def _written_as(pattern: str, advice: str) -> AfterValidator:
    """Accept only texts of a form; the advice says of which."""

    def checked(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(advice)
        return value

    return AfterValidator(checked)


def _parts(networks: str) -> list[str]:
    return [part for one in networks.split(",") if (part := one.strip())]


def _checked_networks(value: str) -> str:
    for part in _parts(value):
        try:
            if part != "*":
                ip_network(part, strict=False)
                int(part.partition("/")[2] or 0)  # nginx knows no other masks
        except ValueError:
            raise ValueError(f"{part[:50]!r} is neither an address or network, such as 10.0.0.0/8, nor *") from None
    return value


def _checked_networks_or_none(value: str) -> str:
    return "none" if value.strip().lower() == "none" else _checked_networks(value)


_NetworksOrNone = Annotated[
    str, AfterValidator(_checked_networks_or_none), Accepts("addresses or networks, `*` for all, or `none`")
]
Rate = Annotated[
    str,
    _written_as(r"[1-9]\d{0,8}r/[sm]", "write 100r/s for requests per second, or 100r/m for requests per minute"),
    Accepts("such as `100r/s` or `600r/m`"),
]
_NginxTime = Annotated[
    str,
    _written_as(r"[1-9]\d{0,8}(ms|s|m|h)", "write 190s for seconds, or 3m for minutes"),
    Accepts("such as `190s` or `5m`"),
]
_Duration = Annotated[
    str,
    _written_as(r"([1-9]\d{0,8}(ms|s|m|h))+", "write 45s for seconds, or 1m30s for more than a minute"),
    Accepts("such as `45s` or `1m30s`"),
]
_RealIp = Annotated[
    str,
    _written_as(
        r"\s*((set_real_ip_from|real_ip_header|real_ip_recursive)\s+[\w.:/-]+;\s*)*",
        "write nginx directives such as set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;",
    ),
    Accepts("nginx directives"),
]


class ListeningSettings(SettingsGroup):
    """Where it listens, and what it lets in."""

    host: Annotated[str, Accepts("an address")] = setting(
        "API_HOST",
        "127.0.0.1",
        "The address that one worker listens on. `0.0.0.0` for everybody who can reach the machine.",
    )
    port: int = setting("API_PORT", 8000, "The port that one worker listens on. 0 takes any free one.", ge=0, le=65535)
    max_body_bytes: Bytes = setting(
        "MAX_BODY_BYTES",
        32 * 1024 * 1024,
        "The largest request body, decompressed; larger ones get a 413. The default has room for a few photographs; "
        "while one is read and sent on, it takes about five times its size of memory.",
        ge=1024,
    )
    max_upload_bytes: Bytes = setting(
        "MAX_UPLOAD_BYTES",
        25 * 1024 * 1024,
        "The largest upload of audio or images, as a whole; larger ones get a 413. The default is OpenAI's own limit. "
        "Uploads don't take memory: they are passed on as they come, or kept in a temporary file for a moment.",
        ge=1024,
    )
    max_headers: int = setting("MAX_HEADERS", 100, "The most header lines of a request; more get a 431.", ge=10)
    max_messages: int = setting("MAX_MESSAGES", 5000, "The most messages in a request; more get a 400.", ge=1)
    client_timeout: Seconds = setting(
        "CLIENT_TIMEOUT_SECONDS",
        20,
        "How long a client may take to send the head of a request; a body may take longer by a second for each KiB. "
        "Connections that are opened and say nothing end after this time.",
        gt=0,
    )
    max_loop_lag: Seconds = setting(
        "MAX_LOOP_LAG_SECONDS",
        1,
        "While the event loop is later than this, new calls get a 503 at once instead of a timeout later.",
        gt=0,
    )
    shutdown_grace: WholeSeconds = setting(
        "SHUTDOWN_GRACE_SECONDS", 30, "How long running requests may take to end when the server is told to stop.", ge=0
    )
    drain: Seconds = setting(
        "DRAIN_SECONDS",
        1,
        "After SIGTERM: how long `/ready` says 503 while new requests are still served, so that load balancers send "
        "them elsewhere.",
        ge=0,
    )
    forwarded_allow_ips: Annotated[str, Accepts("addresses or networks, or `*` for all")] = setting(
        "FORWARDED_ALLOW_IPS",
        "127.0.0.1",
        "Whose `X-Forwarded-Prefix` is believed, the address below which a proxy serves the gateway, and for the "
        "console and the admin API `X-Forwarded-For`, its client: addresses or networks of proxies, separated by "
        "commas.",
    )

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _networks(cls, value: str) -> str:
        return _checked_networks(value)


class ClusterSettings(SettingsGroup):
    """Several workers behind nginx.

    For `./dev cluster`; docker compose reads those that concern nginx, too.
    """

    bind_address: Annotated[str, Accepts("an address")] = setting(
        "BIND_ADDRESS",
        "127.0.0.1",
        "The address that nginx listens on. `0.0.0.0` for everybody who can reach the machine.",
    )
    nginx_port: int = setting(
        "NGINX_PORT",
        8088,
        "The port that users see: nginx's in front of the workers, and the demo's.",
        ge=1,
        le=65535,
    )
    workers: int = setting("CLUSTER_WORKERS", 3, "How many workers `./dev cluster` runs.", ge=1, le=256)
    first_port: int = setting(
        "CLUSTER_FIRST_PORT",
        8101,
        "The port of the first worker of `./dev cluster`; the others follow.",
        ge=1,
        le=65000,
    )
    sticky: Literal["ip", "session"] = setting(
        "STICKY",
        "ip",
        "What keeps a session on one worker. `ip`: the client's address (its first three parts). `session`: the "
        "session's id or `user` together with the key, which is better where many clients share an address or one "
        "client has many sessions.",
    )
    request_rate: Rate = setting(
        "REQUEST_RATE",
        "100r/s",
        "How many requests each API key (without one, each address) may send. nginx answers more with a 429.",
    )
    request_burst: int = setting("REQUEST_BURST", 200, "How many more requests may come at once.", ge=0)
    connections_per_key: int = setting(
        "CONNECTIONS_PER_KEY",
        1000,
        "How many requests of one API key (without one, address) may run at once.",
        ge=1,
        le=_MOST_CONNECTIONS,
    )
    address_rate: Rate = setting(
        "ADDRESS_RATE",
        "500r/s",
        "How many requests each client address (of IPv6, each /64 network) may send, with whatever keys.",
    )
    address_burst: int = setting("ADDRESS_BURST", 1000, "How many more requests of one address may come at once.", ge=0)
    connections_per_address: int = setting(
        "CONNECTIONS_PER_ADDRESS",
        5000,
        "How many requests of one address may run at once.",
        ge=1,
        le=_MOST_CONNECTIONS,
    )
    admin_networks: _NetworksOrNone = setting(
        "ADMIN_NETWORKS",
        "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1/128,fc00::/7,fe80::/10",
        "From which addresses and networks nginx lets requests to the admin API (`/admin/`) and to the console, "
        "separated by commas. The default is this machine and private networks; `*` is everybody, `none` nobody.",
    )
    tls_certificate: Path | None = setting(
        "TLS_CERTIFICATE", None, "A PEM file with nginx's certificate. With it nginx speaks https, without it http."
    )
    tls_certificate_key: Path | None = setting("TLS_CERTIFICATE_KEY", None, "A PEM file with the certificate's key.")

    @property
    def admin_network_list(self) -> list[str]:
        """The networks of `ADMIN_NETWORKS`; `*` for everybody."""
        return [] if self.admin_networks == "none" else _parts(self.admin_networks)

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_certificate_key is None):
            raise ValueError("TLS_CERTIFICATE: goes together with TLS_CERTIFICATE_KEY")
        return self


def _password(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9]*", value.get_secret_value()):
        raise ValueError("must consist of letters and digits, because it becomes part of an address")
    return value


_Image = Annotated[str, Accepts("the name of an image, with `:TAG` or `@sha256:DIGEST`")]


class ComposeSettings(SettingsGroup):
    """Docker Compose.

    Compose, and nobody else, reads these, besides those of nginx above.
    """

    redis_password: Annotated[SecretStr, AfterValidator(_password), Accepts("letters and digits")] = setting(
        "REDIS_PASSWORD",
        "",
        "The password of the session store that `docker-compose.prod.yml` runs, which needs one. Make one with "
        "`openssl rand -hex 24`.",
    )
    postgres_password: Annotated[SecretStr, Accepts("any text")] = setting(
        "POSTGRES_PASSWORD",
        "",
        "The password of the database that `docker-compose.prod.yml` runs, which needs one. Make one with "
        "`openssl rand -hex 24`. It counts at the first start.",
    )
    read_timeout: _NginxTime = setting(
        "READ_TIMEOUT",
        "190s",
        "How long nginx waits for a silent worker; more than `UPSTREAM_QUEUE_TIMEOUT` and `REQUEST_TIMEOUT` together.",
    )
    stop_grace_period: _Duration = setting(
        "STOP_GRACE_PERIOD",
        "45s",
        "How long a container may take to stop before it is killed; more than `DRAIN_SECONDS` and "
        "`SHUTDOWN_GRACE_SECONDS` together.",
    )
    real_ip: _RealIp = setting(
        "REAL_IP",
        "",
        "What nginx believes of another proxy in front of it, such as "
        "`set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;`. Without it, that proxy is its client.",
    )
    grafana_password: Annotated[SecretStr, Accepts("any text")] = setting(
        "GRAFANA_PASSWORD", "admin", "The password of Grafana's user `admin`. It counts at the first start."
    )
    grafana_port: int = setting("GRAFANA_PORT", 3000, "The port of this machine at which Grafana is.", ge=1, le=65535)
    python_image: _Image = setting(
        "PYTHON_IMAGE",
        "",
        "The image that the gateway's is built on, in place of the one that `docker-compose.yml` names. The next five "
        "are the same for nginx, Redis, PostgreSQL (version 18), Prometheus and Grafana. `deploy/images.env` pins all "
        "six.",
    )
    nginx_image: _Image = setting("NGINX_IMAGE", "", "nginx's image.")
    redis_image: _Image = setting("REDIS_IMAGE", "", "Redis's image.")
    postgres_image: _Image = setting("POSTGRES_IMAGE", "", "PostgreSQL's image.")
    prometheus_image: _Image = setting("PROMETHEUS_IMAGE", "", "Prometheus's image.")
    grafana_image: _Image = setting("GRAFANA_IMAGE", "", "Grafana's image.")


def _capitals(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_capitals)]


class LogSettings(SettingsGroup):
    """Logs and traces."""

    level: LogLevel = setting("LOG_LEVEL", "INFO", "The least severe lines that are written.")
    format: Literal["auto", "json", "pretty"] = setting(
        "LOG_FORMAT",
        "auto",
        "`json` for machines; `pretty` for people, with a row for each request; `auto` is `pretty` on a terminal, else "
        "`json`.",
    )
    texts: bool = setting(
        "LOG_TEXTS",
        False,
        "With `LOG_LEVEL=DEBUG`, logs each call's prompt and answer in a line of their own. For debugging only.",
    )
    worker_id: str = setting(
        "WORKER_ID", "", "The name of this worker in its log lines. `./dev cluster` and docker compose set it."
    )
    tracing_endpoint: OptionalHttpUrl = setting(
        "TRACING_ENDPOINT",
        "",
        "Where an OpenTelemetry collector takes traces (OTLP over HTTP), such as `http://localhost:4318/v1/traces`. "
        "Empty for no traces. Needs the packages of `requirements-tracing.txt`.",
    )
