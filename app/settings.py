"""All settings: read from the environment and from `.env`, checked once at the start. See `.env.example`."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PLACEHOLDER = re.compile(
    r"change.?me|your.{0,10}key|placeholder|example|qwerty|letmein|"
    r"^(?:sk-)?(?:x+|test|secret|passw(?:or)?d|token|key|api.?key|default|none|admin|root|user|kimi)[\d!._-]*$",
    re.IGNORECASE,
)
_SEQUENCES = ("0123456789012345", "1234567890123456", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop")
_SHORTEST_KEY = 8
_SHORTEST_NUMBER = 24
_FEWEST_CHARACTERS = 4
_KNOWN_UPSTREAM_MODELS = {
    "kimi-k2-instruct-0905": "moonshotai/Kimi-K2-Instruct-0905",
    "kimi-k2-instruct": "moonshotai/Kimi-K2-Instruct",
}
_SITE = "https://kimi-ai.chat"


class SettingsError(Exception):
    """The settings can't be used; says which, and why, in one line each."""


class Route(NamedTuple):
    """A row of `MODEL_ROUTES`: targets in order, or with weights."""

    targets: tuple[str, ...]
    weights: tuple[float, ...] | None = None


class PresetChoice(NamedTuple):
    """The settings of an upstream that is known by name; empty where nothing is set."""

    key: str
    base_url: str
    models: dict[str, str]


class Settings(BaseSettings):
    """Every field is an environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    # Who may use the gateway
    api_master_key: SecretStr = SecretStr("")
    auth_disabled: bool = False
    metrics_key: SecretStr = SecretStr("")
    cors_origins: Annotated[list[str], NoDecode] = []

    # Where it listens
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    nginx_port: int = Field(8088, ge=1, le=65535)
    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    max_headers: int = Field(100, ge=10)
    max_messages: int = Field(5000, ge=1)
    max_loop_lag_seconds: float = Field(1, gt=0)
    shutdown_grace_seconds: int = Field(30, ge=0)

    drain_seconds: float = Field(1, ge=0)
    forwarded_allow_ips: str = "127.0.0.1"

    # Several workers behind nginx
    bind_address: str = "127.0.0.1"
    cluster_workers: int = Field(3, ge=1, le=256)
    cluster_first_port: int = Field(8101, ge=1, le=65000)
    worker_id: str = ""
    sticky: Literal["ip", "session"] = "ip"
    request_rate: str = "100r/s"
    request_burst: int = Field(200, ge=0)
    connections_per_key: int = Field(1000, ge=1)
    tls_certificate: Path | None = None
    tls_certificate_key: Path | None = None

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["json", "pretty"] = "json"
    log_texts: bool = False

    tracing_endpoint: str = ""

    # Models
    known_models: Annotated[dict[str, str], NoDecode] = _KNOWN_UPSTREAM_MODELS
    default_model: str = "kimi-k2-instruct-0905"
    model_routes: Annotated[dict[str, Route], NoDecode] = {}
    context_max_length: int = Field(1000, ge=50)
    context_length_unit: Literal["codepoints", "utf16", "bytes"] = "codepoints"

    # Upstreams besides the Kimi site: a key (of local ones the address) switches each on; the file has the rest
    providers_file: Path | None = None
    moonshot_api_key: SecretStr = SecretStr("")
    moonshot_base_url: str = ""
    moonshot_models: Annotated[dict[str, str], NoDecode] = {}
    moonshot_cn_api_key: SecretStr = SecretStr("")
    moonshot_cn_base_url: str = ""
    moonshot_cn_models: Annotated[dict[str, str], NoDecode] = {}
    deepseek_api_key: SecretStr = SecretStr("")
    deepseek_base_url: str = ""
    deepseek_models: Annotated[dict[str, str], NoDecode] = {}
    qianfan_api_key: SecretStr = SecretStr("")
    qianfan_base_url: str = ""
    qianfan_models: Annotated[dict[str, str], NoDecode] = {}
    openai_api_key: SecretStr = SecretStr("")
    openai_models: Annotated[dict[str, str], NoDecode] = {}
    openrouter_api_key: SecretStr = SecretStr("")
    openrouter_base_url: str = ""
    openrouter_models: Annotated[dict[str, str], NoDecode] = {}
    siliconflow_api_key: SecretStr = SecretStr("")
    siliconflow_base_url: str = ""
    siliconflow_models: Annotated[dict[str, str], NoDecode] = {}
    ollama_base_url: str = ""
    ollama_models: Annotated[dict[str, str], NoDecode] = {}
    vllm_base_url: str = ""
    vllm_models: Annotated[dict[str, str], NoDecode] = {}
    lmstudio_base_url: str = ""
    lmstudio_models: Annotated[dict[str, str], NoDecode] = {}

    # Sessions
    session_store_url: SecretStr = SecretStr("memory://")
    session_cache_ttl: float = Field(3600, gt=0)
    max_session_size: int = Field(1000, ge=1)
    session_max_characters: int = Field(200_000, ge=1000)
    session_from_user: bool = True
    session_lock_wait: float = Field(30, gt=0)
    session_lock_ttl: float = Field(15, ge=1)
    session_replay_seconds: float = Field(60, ge=0)
    response_cache_ttl: float = Field(3600, gt=0)
    max_stored_responses: int = Field(10_000, ge=1)

    # The Kimi site
    chat_page_url: str = f"{_SITE}/chat/"
    upstream_url: str = ""
    keep_upstream_session: bool = False
    nonce_max_age: float = Field(6 * 3600, gt=0)
    page_timeout: float = Field(20, gt=0)
    request_timeout: float = Field(120, gt=0)
    max_retries: int = Field(3, ge=0, le=20)
    retry_budget: float = Field(0.2, ge=0, le=1)
    max_reply_bytes: int = Field(4 * 1024 * 1024, ge=1024)

    # Being a polite guest there
    upstream_concurrency: int = Field(32, ge=1)
    upstream_queue_size: int = Field(1000, ge=0)
    upstream_queue_timeout: float = Field(60, gt=0)
    breaker_failure_rate: float = Field(0.5, gt=0, le=1)
    breaker_minimum_calls: int = Field(20, ge=1)
    breaker_open_seconds: float = Field(5, gt=0)
    breaker_challenge_seconds: float = Field(60, gt=0)

    # Streams
    stream_idle_timeout: float = Field(60, gt=0)
    stream_grace_seconds: float = Field(10, gt=0)
    heartbeat_seconds: float = Field(15, gt=0)
    stream_write_timeout: float = Field(60, gt=0)
    typing_piece_size: int = Field(4, ge=1)
    typing_delay_seconds: float = Field(0.02, ge=0)
    typing_max_seconds: float = Field(3, ge=0)

    def preset_choice(self, preset: str) -> PresetChoice:
        """What is set for an upstream that is known by name, such as `moonshot-cn`."""
        prefix = preset.replace("-", "_")
        key: SecretStr = getattr(self, f"{prefix}_api_key", SecretStr(""))
        base_url: str = getattr(self, f"{prefix}_base_url", "")
        return PresetChoice(key.get_secret_value().strip(), base_url, getattr(self, f"{prefix}_models"))

    @property
    def api_keys(self) -> list[str]:
        """The keys of `API_MASTER_KEY`."""
        return [key for part in self.api_master_key.get_secret_value().split(",") if (key := part.strip())]

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _no_paths(cls, value: list[str]) -> list[str]:
        if not all(origin in ("*", "null") or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin) for origin in value):
            raise ValueError("write origins such as https://chat.example.org: with the scheme, without / at the end")
        return value

    @field_validator("request_rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d*r/[sm]", value):
            raise ValueError("write 100r/s for requests per second, or 100r/m for requests per minute")
        return value

    @field_validator("known_models", mode="before")
    @classmethod
    def _model_map(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        models = {}
        for part in filter(None, (part.strip() for part in value.split(","))):
            public, _, upstream = (side.strip() for side in part.partition("="))
            if not public:
                raise ValueError("write public-name=upstream-name, separated by commas")
            models[public] = upstream or _KNOWN_UPSTREAM_MODELS.get(public, public)
        return models

    @field_validator("model_routes", mode="before")
    @classmethod
    def _routes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        rows = [part for part in (part.strip() for part in value.split(",")) if part]
        return dict(_route(row) for row in rows)

    @field_validator(
        *("moonshot_models", "moonshot_cn_models", "deepseek_models", "qianfan_models", "openai_models"),
        *("openrouter_models", "siliconflow_models", "ollama_models", "vllm_models", "lmstudio_models"),
        mode="before",
    )
    @classmethod
    def _preset_models(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        rows = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(public.strip() for public, _, _ in rows):
            raise ValueError("write names of models, or public-name=upstream-name, separated by commas")
        return {public.strip(): own.strip() or public.strip() for public, _, own in rows}

    @field_validator("session_store_url")
    @classmethod
    def _store_url(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"(memory|redis|rediss|unix)://", value.get_secret_value()):
            raise ValueError("must be memory://, or a redis://, rediss:// or unix:// address")
        return value

    @field_validator(
        *("chat_page_url", "upstream_url", "tracing_endpoint"),
        *("moonshot_base_url", "moonshot_cn_base_url", "deepseek_base_url", "qianfan_base_url", "openrouter_base_url"),
        *("siliconflow_base_url", "ollama_base_url", "vllm_base_url", "lmstudio_base_url"),
    )
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and not _is_http_url(value):
            raise ValueError("must be an http:// or https:// address")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if not self.known_models:
            raise ValueError("KNOWN_MODELS: at least one model is needed")
        if self.default_model not in self.known_models:
            raise ValueError(f"DEFAULT_MODEL: {self.default_model!r} is not one of KNOWN_MODELS")
        if not self.chat_page_url:
            raise ValueError("CHAT_PAGE_URL: an address is needed")
        if (self.tls_certificate is None) != (self.tls_certificate_key is None):
            raise ValueError("TLS_CERTIFICATE: goes together with TLS_CERTIFICATE_KEY")
        if self._sessions_are_shared() and self.session_lock_ttl * 2 > self.session_lock_wait:
            raise ValueError("SESSION_LOCK_TTL: must be at most half of SESSION_LOCK_WAIT")
        if not self.auth_disabled:
            _check_keys(self.api_keys)
        if _is_trivial(self.metrics_key.get_secret_value() or "0f1e2d3c4b5a"):
            raise ValueError("METRICS_KEY: it is a placeholder or easy to guess")
        return self

    def _sessions_are_shared(self) -> bool:
        return not self.session_store_url.get_secret_value().startswith("memory:")


def load_settings(**overrides: object) -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: With a line for each wrong value. Values are not repeated: some are secrets.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # checked by pydantic, which is the point
    except ValidationError as error:
        raise SettingsError("\n".join(_line(fault["loc"], fault["msg"]) for fault in error.errors())) from None
    except UnicodeDecodeError:
        raise SettingsError(".env: the file is not UTF-8") from None


def environment() -> dict[str, str]:
    """All variables of the environment and of `.env`, for what names them itself; the environment wins."""
    from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**from_file, **os.environ}


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not re.search(r"\s", value)
        )
    except ValueError:
        return False


def _route(row: str) -> tuple[str, Route]:
    """`name=first>second`, or `name=some*3|others*1`."""
    name, _, given = (side.strip() for side in row.partition("="))
    weighted = "*" in given
    targets = [target.strip() for target in given.split("|" if weighted else ">")]
    if not name or not all(targets):
        raise ValueError("write name=first>second or name=some*3|others*1, separated by commas")
    if not weighted:
        return name, Route(tuple(targets))
    pairs = [target.rpartition("*") for target in targets]
    if any(not target or not re.fullmatch(r"\d+(\.\d+)?", weight) or float(weight) <= 0 for target, _, weight in pairs):
        raise ValueError("every target of a weighted route needs a weight above 0, as in some*3|others*1")
    return name, Route(tuple(target for target, _, _ in pairs), tuple(float(weight) for _, _, weight in pairs))


def _line(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{str(location[0]).upper()}: {message}" if location else message


def _check_keys(keys: list[str]) -> None:
    if not keys:
        raise ValueError(
            "API_MASTER_KEY: a key is needed (make one with: openssl rand -hex 24); "
            "AUTH_DISABLED=true goes without, for local use"
        )
    for place, key in enumerate(keys, start=1):
        if _is_trivial(key):
            raise ValueError(
                f"API_MASTER_KEY: key {place} is a placeholder or easy to guess (make one with: openssl rand -hex 24)"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"API_MASTER_KEY: key {place} must consist of printable ASCII characters without spaces")


def _is_trivial(key: str) -> bool:
    bare = key.lower().removeprefix("sk-")
    return (
        len(key) < _SHORTEST_KEY
        or len(set(bare)) < _FEWEST_CHARACTERS
        or (bare.isdigit() and len(bare) < _SHORTEST_NUMBER)
        or any(bare in sequence for sequence in _SEQUENCES)
        or _PLACEHOLDER.search(key) is not None
    )
