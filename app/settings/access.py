"""Who may use the gateway."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, SecretStr, field_validator, model_validator

from app.settings.group import Accepts, SettingsGroup, setting

_PLACEHOLDER = re.compile(
    r"change.?me|your.{0,10}key|placeholder|example|qwerty|letmein|"
    r"^(?:sk-)?(?:x+|test|secret|passw(?:or)?d|token|key|api.?key|default|none|admin|root|user|kimi)[\d!._-]*$",
    re.IGNORECASE,
)
_SEQUENCES = ("0123456789012345", "1234567890123456", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop")
_SHORTEST_KEY = 8
_SHORTEST_NUMBER = 24
_FEWEST_CHARACTERS = 4


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class AccessSettings(SettingsGroup):
    """Who may use the gateway."""

    master_key: Annotated[SecretStr, Accepts("keys of 8 or more characters")] = setting(
        "API_MASTER_KEY",
        "",
        "One key, or several separated by commas. Each is a caller of its own, with its own sessions. A key has at "
        "least 8 characters and is not easy to guess; make one with `openssl rand -hex 24`. This is the only setting "
        "without a default: the gateway doesn't start without a key, unless `AUTH_DISABLED` is true.",
    )
    auth_disabled: bool = setting(
        "AUTH_DISABLED", False, "Lets everybody in who can reach the port, without a key. For local use only."
    )
    metrics_key: Annotated[SecretStr, Accepts("a key of 8 or more characters")] = setting(
        "METRICS_KEY",
        "",
        "A key that opens `/metrics` and nothing else, for Prometheus. Those of `API_MASTER_KEY` open it, too, and "
        "those that have the scope `metrics`.",
    )
    cors_origins: Annotated[list[str], BeforeValidator(_list), Accepts("origins, `localhost`, or `*` for all")] = (
        setting(
            "CORS_ORIGINS",
            "",
            "Browser origins that may call the API, separated by commas, such as `https://chat.example.org` (without a "
            "slash at the end). `localhost` allows this machine's own pages, at any port; `*` allows all, empty none.",
        )
    )

    @property
    def api_keys(self) -> list[str]:
        """The keys of `API_MASTER_KEY`."""
        return [key for part in self.master_key.get_secret_value().split(",") if (key := part.strip())]

    @field_validator("cors_origins")
    @classmethod
    def _no_paths(cls, value: list[str]) -> list[str]:
        words = ("*", "null", "localhost")
        if not all(origin in words or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin) for origin in value):
            raise ValueError("write origins such as https://chat.example.org: with the scheme, without / at the end")
        return value

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if not self.auth_disabled:
            _check_api_keys(self.api_keys)
        metrics_key = self.metrics_key.get_secret_value()
        if metrics_key and _is_trivial(metrics_key):
            raise ValueError("METRICS_KEY: it is a placeholder or easy to guess")
        if metrics_key and metrics_key in self.api_keys:
            raise ValueError("METRICS_KEY: it is one of API_MASTER_KEY's, which open /metrics anyway; make another one")
        return self


def _check_api_keys(keys: list[str]) -> None:
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
        if key[0] in "\"'" or key[-1] in "\"'":
            raise ValueError(
                f"API_MASTER_KEY: key {place} begins or ends with a quote, which is probably not part of it"
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
