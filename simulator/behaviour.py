"""How the simulated site behaves: every knob, its meaning and what it accepts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")

PAGE_STYLES: Final = ("plain", "minified", "nested", "multiline", "foreign_ajax_url")
CHALLENGES: Final = ("challenge", "challenge_202", "challenge_429", "just_a_moment")
FAILURES: Final = (
    *("nonce_refused", "nonce_refused_json"),
    *("refused", "refused_object", "refused_list", "refused_without_data", "refused_html", "moderated"),
    *("unknown_action", "html", "other_json", "database_down", "php_fatal"),
    *("maintenance", "server_error", "bad_gateway", "gateway_timeout", "cloudflare_timeout", "too_large"),
    *("rate_limited", "rate_limited_json", "overloaded"),
    *CHALLENGES,
    *("forbidden", "redirect"),
    *("reset", "reset_mid_body", "truncated_json", "slow_drip", "huge", "empty_message", "hang"),
)
PAGE_FAILURES: Final = (
    *("challenge", "no_nonce", "broken_json", "server_error", "maintenance"),
    *("hang", "reset", "empty", "slow_drip", "huge"),
)
API_FAILURES: Final = (
    *("openai_key", "openai_rate", "openai_quota", "openai_context", "openai_bad_request", "openai_error"),
    *("moonshot_context", "moonshot_quota", "moonshot_overloaded", "moonshot_risk", "moonshot_model"),
    *("deepseek_max_tokens", "deepseek_balance", "deepseek_busy", "qianfan_key", "qianfan_rate"),
    *("siliconflow_model", "siliconflow_busy", "openrouter_credits", "openrouter_moderation"),
    *("anthropic_key", "anthropic_rate", "anthropic_busy", "anthropic_context", "anthropic_credit"),
    *("anthropic_policy", "anthropic_model"),
    *("gemini_key", "gemini_rate", "gemini_busy", "gemini_context", "gemini_blocked"),
    *("vllm_context", "ollama_model", "no_such_url", "cloudflare_timeout", "cloudflare_challenge"),
    *("html", "not_json", "nothing", "other_json", "empty_answer", "error_with_200"),
    *("reset", "hang", "reset_mid_answer", "cut_mid_answer", "hang_mid_answer", "garbage_mid_answer"),
    *("error_mid_answer", "huge_mid_answer", "no_done", "no_finish_reason", "no_usage"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one knob accepts, for the program (`accepts`) and for people (`wanted`)."""

    wanted: str
    accepts: Callable[[object], bool]


def _is_count(value: object, least: int = 0) -> bool:
    # bool is an int in Python, but `true` is no count.
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _flag(default: bool) -> bool:
    return _knob(default, Rule("true or false", lambda value: isinstance(value, bool)))


def _seconds(default: float) -> float:
    return _knob(default, Rule("a number of seconds, 0 or more", _is_duration))


def _count(default: int) -> int:
    return _knob(default, Rule("a whole number, 0 or more", _is_count))


def _times() -> int | None:
    rule = Rule("null or a whole number, 1 or more", lambda value: value is None or _is_count(value, 1))
    return _knob(None, rule)


def _name_of(names: tuple[str, ...]) -> str | None:
    rule = Rule(f"null or one of {', '.join(names)}", lambda value: value is None or value in names)
    return _knob(None, rule)


def _text_or_null() -> str | None:
    return _knob(None, Rule("null or a text", lambda value: value is None or isinstance(value, str)))


def _is_calls(value: object) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in value)
    )


def _calls() -> Sequence[Mapping[str, Any]] | None:
    return _knob(None, Rule('null or a list of {"name", "arguments"}', _is_calls))


def _knob(default: T, rule: Rule) -> T:
    made: T = field(default=default, metadata={"rule": rule})
    return made


@dataclass(frozen=True, slots=True)
class Behaviour:
    """All knobs of the site. Durations are in seconds.

    Raises ValueError on a value that a knob does not accept.
    """

    latency_s: float = _seconds(0.0)
    """Wait before the answer to a message (model's or failure's; WordPress's own refusals come at once)."""
    page_latency_s: float = _seconds(0.0)
    reply: str | None = _knob(None, Rule("null or a text", lambda value: value is None or isinstance(value, str)))
    """Exactly this is answered; null composes an answer from the prompt."""
    char_limit: int = _count(1000)
    """Longest message in code points; 0 = no limit."""
    any_model: bool = _flag(False)
    nonce_lifetime_s: float = _seconds(12 * 3600.0)
    nonces_never_valid: bool = _flag(False)
    require_cookie: bool = _flag(False)
    """A nonce belongs to the visitor cookie that its page set, and is refused without it."""
    require_same_user_agent: bool = _flag(False)
    """Messages from a User-Agent that never fetched the page meet a challenge."""
    failure: str | None = _name_of(FAILURES)
    """How messages fail; null = they don't."""
    failure_times: int | None = _times()
    """For how many more messages; null = until changed."""
    challenge_cleared_by_page: bool = _flag(False)
    """Page fetches set `cf_clearance`, and messages that carry it get past a challenge failure."""
    page_failure: str | None = _name_of(PAGE_FAILURES)
    page_failure_times: int | None = _times()
    page_style: str = _knob("plain", Rule(f"one of {', '.join(PAGE_STYLES)}", lambda value: value in PAGE_STYLES))
    stale_pages: int = _count(0)
    """The next n page fetches without a query string come from a page cache, with an expired nonce."""
    retry_after_s: float | Literal["default"] | None = _knob(
        "default",
        Rule(
            'null, "default" or a number of seconds, 0 or more',
            lambda value: value is None or value == "default" or _is_duration(value),
        ),
    )
    """`Retry-After` where a failure has one; null = no such header; "default" = 600 for maintenance, else 1."""
    huge_bytes: int = _count(5_000_000)
    drip_s: float = _seconds(0.1)
    """Wait before each byte of a slow drip."""

    api_key: str | None = _text_or_null()
    """The key that the OpenAI API wants; null = any, or none."""
    api_latency_s: float = _seconds(0.0)
    """Wait before an answer of the OpenAI API …"""
    api_chunk_delay_s: float = _seconds(0.0)
    """… and before each further chunk of a stream."""
    api_reasoning: str | None = _text_or_null()
    """What is thought before each answer."""
    api_tool_calls: Sequence[Mapping[str, Any]] | None = _calls()
    """What is called when a request has tools and its last message isn't a result; null calls only if forced to."""
    api_context: int = _count(0)
    """Characters that a conversation may have; 0 = no limit."""
    api_failure: str | None = _name_of(API_FAILURES)
    """How requests to the OpenAI API fail; null = they don't."""
    api_failure_times: int | None = _times()

    def __post_init__(self) -> None:
        for knob in fields(self):
            rule: Rule = knob.metadata["rule"]
            value = getattr(self, knob.name)
            if not rule.accepts(value):
                raise ValueError(f"{knob.name} must be {rule.wanted}, not {value!r}")


def merge(behaviour: Behaviour, changes: object) -> Behaviour:
    """`behaviour` with the knobs that the JSON object `changes` names.

    A newly set failure lasts until changed, unless `changes` says for how many times: what is left of an
    earlier failure's times is not meant for it.

    Raises ValueError naming the knob that is unknown or has a value that it does not accept.
    """
    if not isinstance(changes, Mapping):
        raise ValueError("the knobs must be a JSON object")  # noqa: TRY004 - all bad input is one error to callers
    known = {knob.name for knob in fields(behaviour)}
    unknown = [str(name) for name in changes if name not in known]
    if unknown:
        raise ValueError(f"unknown knob: {', '.join(unknown)}")
    forgotten: dict[str, Any] = {
        f"{name}_times": None for name in ("failure", "page_failure", "api_failure") if name in changes
    }
    return replace(behaviour, **(forgotten | dict(changes)))
