"""Whom the gateway asks: models, the Kimi site, upstreams with an API, and how much is sent to them."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from app.providers.entries import PresetSettings, model_names
from app.providers.registry import ModelRoute
from app.settings.group import Accepts, Bytes, HttpUrl, OptionalHttpUrl, Seconds, SettingsGroup, setting

_SITE_MODELS = {
    "kimi-k2-instruct-0905": "moonshotai/Kimi-K2-Instruct-0905",
    "kimi-k2-instruct": "moonshotai/Kimi-K2-Instruct",
}


def _site_models(value: object) -> object:
    return model_names(value, _SITE_MODELS)


def _routes(value: object) -> object:
    if not isinstance(value, str):
        return value
    return dict(_route(row) for row in filter(None, map(str.strip, value.split(","))))


def _route(row: str) -> tuple[str, ModelRoute]:
    """Read `name=first>second`, or `name=some*3|others*1`."""
    name, equals, given = (side.strip() for side in row.partition("="))
    if not name or not equals:
        raise ValueError("write name=first>second or name=some*3|others*1, separated by commas")
    return name, ModelRoute.read(given)


class ModelSettings(SettingsGroup):
    """Models."""

    known: Annotated[dict[str, str], BeforeValidator(_site_models), Accepts("`public-name=site-name`, …")] = setting(
        "KNOWN_MODELS",
        ",".join(f"{public}={own}" for public, own in _SITE_MODELS.items()),
        "The site's models: public name and the site's own name, separated by commas. The names of the default may "
        "also stand alone.",
    )
    default: Annotated[str, Accepts("a model, or a name of `MODEL_ROUTES`")] = setting(
        "DEFAULT_MODEL",
        "kimi-k2-instruct-0905",
        "The model of requests that name none. `kimi` is another name for it if it is one of `KNOWN_MODELS`, else for "
        "the first of these.",
    )
    routes: Annotated[dict[str, ModelRoute], BeforeValidator(_routes), Accepts("`name=a>b` or `name=a*3|b*1`, …")] = (
        setting(
            "MODEL_ROUTES",
            "",
            "Names of your own for models, separated by commas. `a>b` asks `b` when `a` can't answer (down, busy, "
            "conversation too long for it, …); `a*3|b*1` shares the requests three to one. Targets are model ids, "
            "`provider/model`, or other names of this list. The name `*` stands for every name that nobody serves; "
            "without it these are a 404. Example: "
            "`kimi=kimi-web/kimi-k2-instruct-0905>moonshot/kimi-k2-0905-preview,balanced=deepseek-chat*3|gpt-4o*1`",
        )
    )

    @property
    def of_site(self) -> str:
        """The site's model of requests that name none, or that name `kimi`."""
        return self.default if self.default in self.known else next(iter(self.known))

    @model_validator(mode="after")
    def _some_model(self) -> Self:
        if not self.known:
            raise ValueError("KNOWN_MODELS: at least one model is needed")
        return self


class UpstreamSettings(SettingsGroup):
    """Upstreams besides the Kimi site.

    `docs/providers.md` tells more about them.
    """

    providers_file: Path | None = setting(
        "PROVIDERS_FILE", None, "A TOML file with further upstreams, and with everything that can be said about one."
    )
    providers: Annotated[tuple[str, ...], Accepts("`module:Class`, …")] = setting(
        "PROVIDERS",
        "",
        "Provider classes of your own, separated by commas, such as `plugins.shout:ShoutProvider`. The module is "
        "found next to `main.py`, on `PYTHONPATH`, or installed.",
    )
    # By the presets' names. Variables and documentation come from the presets themselves.
    presets: Mapping[str, PresetSettings] = MappingProxyType({})

    @field_validator("providers", mode="before")
    @classmethod
    def _class_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(filter(None, map(str.strip, value.split(","))))
        if not all(re.fullmatch(r"\w+(\.\w+)*:\w+", name) for name in names):
            raise ValueError("write package.module:Class, separated by commas")
        return names


class SiteSettings(SettingsGroup):
    """The Kimi site."""

    page_url: HttpUrl = setting(
        "CHAT_PAGE_URL", "https://kimi-ai.chat/chat/", "The chat page, from which the nonce is read."
    )
    ajax_url: OptionalHttpUrl = setting(
        "UPSTREAM_URL",
        "",
        "Where messages are sent. Empty: to the address that the page names, if it is on the page's own host, else "
        "to WordPress's usual one there.",
    )
    context_max_length: int = setting(
        "CONTEXT_MAX_LENGTH",
        1000,
        "How long one message to the site may be, in `CONTEXT_LENGTH_UNIT`s. `./dev doctor --limit` finds out.",
        ge=50,
    )
    context_length_unit: Literal["codepoints", "utf16", "bytes"] = setting(
        "CONTEXT_LENGTH_UNIT",
        "codepoints",
        "What is counted: Unicode code points, UTF-16 units (as JavaScript does) or bytes of UTF-8.",
    )
    tools_that_do_not_fit: Literal["drop", "refuse"] = setting(
        "TOOLS_THAT_DO_NOT_FIT",
        "drop",
        "`drop` leaves out tools, and forms of JSON, that aren't demanded and don't fit into a message, and "
        "names them in `X-Ignored-Params`. `refuse` answers such a request with a 400.",
    )
    long_messages: Literal["refuse", "shorten", "split"] = setting(
        "LONG_MESSAGES",
        "refuse",
        "What becomes of a last message that is too long. `refuse` answers with a 400 that says how much may be sent. "
        "`shorten` sends its head and tail, with a mark between them. `split` sends it in up to ten parts, which is "
        "of use only if the site keeps its sessions in mind.",
    )
    notices: Literal["off", "brief"] = setting(
        "NOTICES",
        "off",
        "`brief` adds a line below an answer when something was left out or shortened for want of room. Answers that "
        "programs read (JSON, tool calls, titles) never have it.",
    )
    keep_session: bool = setting(
        "KEEP_UPSTREAM_SESSION",
        False,
        "If true, the site sees one session id for all turns of a session; if false, a new one for each message.",
    )
    nonce_max_age: Seconds = setting(
        "NONCE_MAX_AGE", 6 * 3600, "The age at which the nonce is renewed in the background.", gt=0
    )
    page_timeout: Seconds = setting("PAGE_TIMEOUT", 20, "How long fetching the page may take.", gt=0)


class TrafficSettings(SettingsGroup):
    """How much is sent to upstreams.

    For each worker and upstream. `PROVIDERS_FILE` can set most of these for one upstream.
    """

    request_timeout: Seconds = setting(
        "REQUEST_TIMEOUT", 120, "The time for a whole exchange: queue, nonce, retries and reply.", gt=0
    )
    max_retries: int = setting(
        "MAX_RETRIES",
        3,
        "How often a request is tried again after a passing failure (a lost connection, or a 5xx without "
        "`Retry-After`).",
        ge=0,
        le=20,
    )
    retry_budget: float = setting(
        "RETRY_BUDGET",
        0.2,
        "How many retries there may be for each request in the long run, so that an outage doesn't multiply the "
        "load. Ten are always in reserve.",
        ge=0,
        le=1,
    )
    max_reply_bytes: Bytes = setting(
        "MAX_REPLY_BYTES", 4 * 1024 * 1024, "The longest answer of an upstream that is read.", ge=1024
    )
    concurrency: int = setting(
        "UPSTREAM_CONCURRENCY",
        32,
        "How many messages may be at the site at once. (For upstreams with an API see `concurrency` in "
        "`docs/providers.md`.)",
        ge=1,
    )
    queue_size: int = setting(
        "UPSTREAM_QUEUE_SIZE", 1000, "How many requests may wait for their turn; more get a 503.", ge=0
    )
    queue_timeout: Seconds = setting(
        "UPSTREAM_QUEUE_TIMEOUT", 60, "How long a request may wait for its turn before it gets a 503.", gt=0
    )
    longest_pause: Seconds = setting(
        "UPSTREAM_LONGEST_PAUSE",
        300,
        "The longest pause after a 429: an upstream that asks for more is asked again after this time. A pause holds "
        "for the model that was limited; at the site, for all. 0 for none.",
        ge=0,
    )
    breaker_failure_rate: float = setting(
        "BREAKER_FAILURE_RATE",
        0.5,
        "When this share of the calls within 30 seconds has failed, nothing is sent for a while.",
        gt=0,
        le=1,
    )
    breaker_minimum_calls: int = setting(
        "BREAKER_MINIMUM_CALLS", 20, "With fewer calls than this within 30 seconds, failures are not counted.", ge=1
    )
    breaker_open_seconds: Seconds = setting(
        "BREAKER_OPEN_SECONDS",
        5,
        "The pause before one request is let through as a probe. Each failed probe doubles it, up to a minute.",
        gt=0,
    )
    breaker_challenge_seconds: Seconds = setting(
        "BREAKER_CHALLENGE_SECONDS",
        60,
        "How long nothing is sent after a Cloudflare challenge that a fresh page did not end. One challenge is enough.",
        gt=0,
    )
