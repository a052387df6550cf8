"""What is remembered of conversations, and how answers are streamed."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, SecretStr, field_validator, model_validator

from app.settings.group import Accepts, Characters, Seconds, SettingsGroup, setting


def _patterns(value: object) -> object:
    return [part.strip().lower() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class SessionSettings(SettingsGroup):
    """Sessions."""

    store_url: Annotated[SecretStr, Accepts("`memory://`, or a redis://, rediss:// or unix:// address")] = setting(
        "SESSION_STORE_URL",
        "memory://",
        "Where sessions are kept. `memory://` belongs to this process alone. `redis://:password@host:6379/0` "
        "(`rediss://` with TLS) is shared by all workers, so that any of them can continue any session.",
    )
    time_to_live: Seconds = setting(
        "SESSION_CACHE_TTL", 3600, "How long a session is remembered after its last turn.", gt=0
    )
    max_sessions: int = setting(
        "MAX_SESSION_SIZE",
        1000,
        "How many sessions are remembered (in Redis: of each API key). The one unused for longest goes first.",
        ge=1,
    )
    max_characters: Characters = setting(
        "SESSION_MAX_CHARACTERS", 200_000, "How much of one session is remembered. The oldest turns go first.", ge=1000
    )
    from_user: bool = setting(
        "SESSION_FROM_USER",
        True,
        "Whether a request's `user` opens a session when there is no `X-Session-Id`. If false, only `X-Session-Id` "
        "does.",
    )
    lock_wait: Seconds = setting(
        "SESSION_LOCK_WAIT",
        30,
        "How long a request waits for another one of the same session before it gets a 409.",
        gt=0,
    )
    lock_ttl: Seconds = setting(
        "SESSION_LOCK_TTL",
        15,
        "Redis only: how long a session stays locked after its worker was killed. At most half of `SESSION_LOCK_WAIT`.",
        ge=1,
    )
    replay_seconds: Seconds = setting(
        "SESSION_REPLAY_SECONDS",
        60,
        "How long a request that is sent again gets the stored answer. 0 switches that off.",
        ge=0,
    )
    response_time_to_live: Seconds = setting(
        "RESPONSE_CACHE_TTL",
        3600,
        "How long responses of `/v1/responses` are kept, unless they are sent with `store: false`. They are kept "
        "where sessions are.",
        gt=0,
    )
    max_responses: int = setting(
        "MAX_STORED_RESPONSES",
        10_000,
        "How many responses are kept (in Redis: of each API key), fewer if they are large. The oldest go first.",
        ge=1,
    )

    @property
    def shared(self) -> bool:
        """Whether other workers have the same sessions."""
        return not self.store_url.get_secret_value().startswith("memory:")

    @field_validator("store_url")
    @classmethod
    def _known_kind(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"(memory|redis|rediss|unix)://", value.get_secret_value()):
            raise ValueError("must be memory://, or a redis://, rediss:// or unix:// address")
        return value

    @model_validator(mode="after")
    def _locks_end_in_time(self) -> Self:
        if self.shared and self.lock_ttl * 2 > self.lock_wait:
            raise ValueError("SESSION_LOCK_TTL: must be at most half of SESSION_LOCK_WAIT")
        return self


class AnswerCacheSettings(SettingsGroup):
    """Answer cache.

    The very same request, from the same project, can get the answer that it got before. Off unless it is switched on
    here; docs/api.md says which requests ask for it.
    """

    seconds: Seconds = setting(
        "ANSWER_CACHE_SECONDS",
        0,
        "How long answers are kept for requests that ask for it with `Cache-Control: max-age`, which get none that is "
        "older. They are kept where sessions are: up to 32 MiB in memory, or 1,000 of each project in Redis. 0 keeps "
        "none.",
        ge=0,
        le=2_592_000,
    )
    models: Annotated[
        list[str], BeforeValidator(_patterns), Accepts("patterns such as `faq` or `kimi*`, separated by commas")
    ] = setting(
        "ANSWER_CACHE_MODELS",
        "",
        "Models and routes whose requests need not ask for it, as long as they set no temperature above 0: their "
        "names as requests have them, separated by commas, with `*` for anything.",
    )

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if self.models and not self.seconds:
            raise ValueError("ANSWER_CACHE_MODELS: nothing is kept while ANSWER_CACHE_SECONDS is 0")
        return self


class StreamSettings(SettingsGroup):
    """Streams."""

    idle_timeout: Seconds = setting(
        "STREAM_IDLE_TIMEOUT", 60, "How long an upstream's stream may pause after its first word.", gt=0
    )
    grace: Seconds = setting(
        "STREAM_GRACE_SECONDS",
        10,
        "How long a stream waits for the upstream's first word before it opens. Until then errors have their true "
        "HTTP status.",
        gt=0,
    )
    heartbeat: Seconds = setting(
        "HEARTBEAT_SECONDS", 15, "After this much silence a comment is sent, so that proxies keep the connection.", gt=0
    )
    write_timeout: Seconds = setting(
        "STREAM_WRITE_TIMEOUT",
        60,
        "How long a client may leave an answer unread before its connection is cut off.",
        gt=0,
    )
    typing_piece_size: int = setting(
        "TYPING_PIECE_SIZE",
        4,
        "The site answers in one piece, which is then typed out: this many visible characters at a time.",
        ge=1,
    )
    typing_delay: Seconds = setting(
        "TYPING_DELAY_SECONDS", 0.02, "The pause between two pieces. 0 sends as fast as the client reads.", ge=0
    )
    typing_max: Seconds = setting(
        "TYPING_MAX_SECONDS",
        3,
        "The most time that typing out one answer takes. A long answer comes in larger pieces.",
        ge=0,
    )
