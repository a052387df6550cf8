"""Fields by which an upstream can be told to ask another model than the one that is named.

They would pass by a key's models, and by the limits and prices of a model: routes are for that. Known of OpenRouter
(`models`, `preset`, `plugins`), LiteLLM (`fallbacks`, `deployment_id`, `user_config` …), Vercel's gateway
(`providerOptions`), Groq's compound systems, Orq and Eden AI. Pure.
"""

from collections.abc import Iterator, Mapping

from app.domain.errors import InvalidRequest

# Compared without regard to case, `_` and `-`: an upstream may have none either.
_NAMES = frozenset(
    {"models", "model_list", "fallback", "fallbacks", "fallback_model", "fallback_models", "fallback_providers"}
    | {"context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks", "model_routing_config"}
    | {"route", "preset", "deployment_id", "specific_deployment", "custom_llm_provider", "api_base", "base_url"}
    | {"user_config", "router_settings_override"}
)
# What stands in them goes to the upstream as if it stood beside them, or to a part of it that has models of its own.
_HOLDERS = frozenset(
    {"extra_body", "extra_params", "litellm_params", "provider", "provider_options", "gateway", "plugins"}
    | {"compound_custom", "orq"}
)
# What nearly all requests have, for a shorter look at them.
_USUAL = frozenset(
    {"model", "messages", "stream", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"}
    | {"logprobs", "top_logprobs", "reasoning_effort", "input", "prompt", "max_tokens", "system", "tools", "thinking"}
)


def _plain(name: str) -> str:
    # Go's reader, for one, takes `ſ` for an s and the sign of Kelvin for a k.
    return name.casefold().replace("_", "").replace("-", "")


_PLAIN_NAMES = frozenset(map(_plain, _NAMES))
_PLAIN_HOLDERS = frozenset(map(_plain, _HOLDERS))


def may_hold_models(name: str) -> bool:
    """Whether a field of this name names other models, or may hold one that does."""
    plain = _plain(name)
    return plain in _PLAIN_NAMES or plain in _PLAIN_HOLDERS


def is_holder(name: str) -> bool:
    """Whether it takes a look at what a field holds to tell whether that names other models."""
    return name not in _USUAL and _plain(name) in _PLAIN_HOLDERS


def naming_other_models(fields: Mapping[str, object]) -> Iterator[str]:
    """The names of those fields of a request that name other models, themselves or in what they hold."""
    for name, value in fields.items():
        if name in _USUAL:
            continue
        plain = _plain(name)
        if plain in _PLAIN_NAMES or (plain in _PLAIN_HOLDERS and _names_models(value)) or plain == "model":
            yield name


def take_other_models(fields: dict[str, object]) -> list[str]:
    """Take those fields out of what is passed on to an upstream; their names."""
    names = list(naming_other_models(fields))
    for name in names:
        del fields[name]
    return names


def refuse_other_models(fields: Mapping[str, object]) -> None:
    """Refuse a request that is passed on with fields that name other models.

    Raises:
        InvalidRequest: It has one.
    """
    for name in naming_other_models(fields):
        raise other_models_refused(name)


def other_models_refused(name: str) -> InvalidRequest:
    """The error for a field that names, or could name, other models."""
    return InvalidRequest(
        f"{name[:64]} is not passed on: it could have another model answer than `model`, past the key's models and "
        "limits. Leave it out; the gateway's routes have fallbacks.",
        param=name[:64],
        code="unsupported_parameter",
    )


def _names_models(value: object) -> bool:
    # Not by calls within calls: it may be nested as deep as it likes.
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            for name, held in one.items():
                plain = _plain(name)
                if plain in _PLAIN_NAMES or plain.endswith(("model", "models")):
                    return True
                waiting.append(held)
        elif isinstance(one, str) and one.lstrip().startswith(("{", "[")):
            return True  # JSON within JSON, which nobody needs
    return False
