"""All providers, and the registry that holds them.

A further one is its module, and an entry in `_SOURCES`. One that lives outside this project needs neither: the setting
`PROVIDERS` names its class.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType

import structlog
from msgspec import Struct

from app.domain.chat import ApiKind
from app.domain.prompt import PromptLimit
from app.domain.spans import Trace, no_trace
from app.providers.anthropic.provider import AnthropicProvider
from app.providers.api_upstream.provider import ApiProvider
from app.providers.api_upstream.upstream import Upstream
from app.providers.base import BaseProvider, ModelSpec
from app.providers.config import Traffic, configured_upstream, configured_upstreams
from app.providers.entries import KeyedEntry, ProvidersFile, ProvidersFileError, read_providers_file
from app.providers.gemini.provider import GeminiProvider
from app.providers.http import HttpClient, Tls
from app.providers.kimi.nonce import NoncePolicy
from app.providers.kimi.page import PageReader
from app.providers.kimi.provider import KimiProvider
from app.providers.openai_compatible.presets import API_CONCURRENCY, PRESETS, Preset
from app.providers.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.registry import ModelRoute, ProviderRegistry
from app.providers.resilience.breaker import BreakerPolicy
from app.providers.resilience.guard import Guard
from app.providers.resilience.limits import Bulkhead, RetryBudget, RetryPolicy
from app.settings import Settings, SettingsError, environment, setting_names, unknown_lines

_RETRY_RESERVE = 10
# What the site's default model is called as well.
_SHORT_NAME = "kimi"


class _Ingredients(Struct, frozen=True):
    """What providers are made of."""

    settings: Settings
    file: ProvidersFile
    presets: Mapping[str, Preset]
    trace: Trace
    tls: Tls


class _Source(Struct, frozen=True):
    """Where providers come from.

    Args:
        name: The setting behind it, for the error when a provider's name is taken already.
        make: Makes the providers.
    """

    name: str
    make: Callable[[_Ingredients], Iterable[BaseProvider]]


class Providers(Struct, frozen=True):
    """What the settings say of upstreams.

    Args:
        registry: Has the providers.
        routes: The names of the routes that the settings set.
        make: Makes a further provider of an entry. Raises ValueError if it lacks something.
    """

    registry: ProviderRegistry
    routes: frozenset[str]
    make: Callable[[KeyedEntry], BaseProvider]


def build_registry(
    settings: Settings,
    trace: Trace = no_trace,
    further_providers: Iterable[BaseProvider] = (),
    presets: Mapping[str, Preset] = PRESETS,
) -> ProviderRegistry:
    """Make all providers and register them. See `build_providers`."""
    return build_providers(settings, trace, further_providers, presets).registry


def build_providers(
    settings: Settings,
    trace: Trace = no_trace,
    further_providers: Iterable[BaseProvider] = (),
    presets: Mapping[str, Preset] = PRESETS,
) -> Providers:
    """Make all providers and register them, in the order of `_SOURCES`.

    Raises:
        SettingsError: `PROVIDERS_FILE`, `PROVIDERS` or `MODEL_ROUTES` can't be used.
    """
    file = _providers_file(settings)
    _warn_of_unknown_lines(file, presets)
    registry = ProviderRegistry(settings.models.default, _routes(settings, file))
    ingredients = _Ingredients(settings, file, presets, trace, Tls())
    for source in (*_SOURCES, _Source("further_providers", lambda _: further_providers)):
        for provider in source.make(ingredients):
            try:
                registry.register(provider)
            except ValueError as error:
                raise SettingsError(f"{source.name}: {error}") from None
    try:
        registry.check_routes()
    except ValueError as error:
        raise SettingsError(f"MODEL_ROUTES: {error}") from None
    if not registry.serves(registry.default_model):
        raise SettingsError(f"DEFAULT_MODEL: nobody serves {registry.default_model!r}, and no route has that name")
    return Providers(
        registry, frozenset(file.named_routes() | settings.models.routes), partial(_made_of_entry, ingredients)
    )


def _providers_file(settings: Settings) -> ProvidersFile:
    path = settings.upstreams.providers_file
    try:
        return read_providers_file(path) if path else ProvidersFile()
    except ProvidersFileError as error:
        lines = str(error).splitlines()
        raise SettingsError("\n".join(f"PROVIDERS_FILE: {line}" for line in lines)) from None


def _warn_of_unknown_lines(file: ProvidersFile, presets: Mapping[str, Preset]) -> None:
    known = [*file.variables(), *(variable for preset in presets.values() for variable in preset.variables.values())]
    for name, nearest in unknown_lines(known).items():
        structlog.get_logger("kimi.assembly").warning(
            "unknown_setting", name=name, nearest=nearest, meaning="nobody reads this line of .env"
        )


def _routes(settings: Settings, file: ProvidersFile) -> dict[str, ModelRoute]:
    """The file's, and those of the setting, which win."""
    routes = file.named_routes() | settings.models.routes
    if _SHORT_NAME not in settings.models.known:
        routes.setdefault(_SHORT_NAME, ModelRoute((settings.models.of_site,)))
    return routes


# ── The Kimi site ────────────────────────────────────────────────────────────────────────────────────────────────────


def _kimi_site(given: _Ingredients) -> list[BaseProvider]:
    settings, site, traffic = given.settings, given.settings.site, given.settings.traffic
    limit = PromptLimit(site.context_max_length, site.context_length_unit)
    provider = KimiProvider(
        models=[
            ModelSpec(public, upstream, limit, owned_by="moonshotai", takes_parts=True)
            for public, upstream in settings.models.known.items()
        ],
        page=PageReader(page_url=site.page_url, ajax_url=site.ajax_url or None, timeout=site.page_timeout),
        nonce_policy=NoncePolicy(renew_after=site.nonce_max_age),
        client=HttpClient(max_reply_bytes=traffic.max_reply_bytes, tls=given.tls),
        guard=Guard(
            bulkhead=Bulkhead(
                slots=traffic.concurrency,
                queue_size=traffic.queue_size,
                queue_timeout=traffic.queue_timeout,
                trace=given.trace,
            ),
            breaker=_breaker_policy(settings),
            retry=RetryPolicy(retries=traffic.max_retries),
            budget=_retry_budget(settings, traffic.max_retries),
            timeout=traffic.request_timeout,
            longest_pause=traffic.longest_pause,
            name=KimiProvider.name,
        ),
        keep_upstream_session=site.keep_session,
        trace=given.trace,
    )
    return [provider]


# ── Upstreams with an API ────────────────────────────────────────────────────────────────────────────────────────────


_API_PROVIDERS: Mapping[ApiKind, type[ApiProvider]] = MappingProxyType(
    {"openai": OpenAICompatibleProvider, "anthropic": AnthropicProvider, "gemini": GeminiProvider}
)


def _api_upstreams(given: _Ingredients) -> list[BaseProvider]:
    """The presets that are switched on, and the file's rows."""
    presets, defaults = given.settings.upstreams.presets, _default_traffic(given.settings)
    try:
        rows = configured_upstreams(given.file, presets, environment(), defaults, given.presets)
    except ProvidersFileError as error:
        raise SettingsError(f"PROVIDERS_FILE: {error}") from None
    return [_api_provider(given, upstream, own_traffic) for upstream, own_traffic in rows]


def _made_of_entry(given: _Ingredients, entry: KeyedEntry) -> BaseProvider:
    """The provider of an entry that comes from elsewhere than the file. Variables that it names are read now.

    Raises:
        ValueError: It lacks something.
    """
    # Whoever may add upstreams could else have any secret of the gateway's sent anywhere.
    own = entry.variables() & {*setting_names(given.presets)}
    if own:
        raise ValueError(f"{', '.join(sorted(own))}: this is a setting of the gateway; name a variable of your own")
    presets, defaults = given.settings.upstreams.presets, _default_traffic(given.settings)
    return _api_provider(given, *configured_upstream(entry, presets, environment(), defaults, given.presets))


def _default_traffic(settings: Settings) -> Traffic:
    traffic = settings.traffic
    return Traffic(
        concurrency=API_CONCURRENCY,
        queue=traffic.queue_size,
        queue_timeout=traffic.queue_timeout,
        timeout=traffic.request_timeout,
        idle_timeout=settings.streams.idle_timeout,
        retries=traffic.max_retries,
        longest_pause=traffic.longest_pause,
        breaker=_breaker_policy(settings),
    )


def _api_provider(given: _Ingredients, upstream: Upstream, traffic: Traffic) -> ApiProvider:
    max_reply_bytes = given.settings.traffic.max_reply_bytes
    return _API_PROVIDERS[upstream.kind](
        upstream,
        # One each: no upstream sees a connection that another has used.
        client=HttpClient(max_reply_bytes=max_reply_bytes, keep_cookies=False, tls=given.tls),
        guard=Guard(
            bulkhead=Bulkhead(
                slots=traffic.concurrency,
                queue_size=traffic.queue,
                queue_timeout=traffic.queue_timeout,
                trace=given.trace,
            ),
            breaker=traffic.breaker,
            retry=RetryPolicy(retries=traffic.retries),
            budget=_retry_budget(given.settings, traffic.retries),
            timeout=traffic.timeout,
            idle_timeout=traffic.idle_timeout,
            longest_pause=traffic.longest_pause,
            name=upstream.name,
        ),
        max_reply_bytes=max_reply_bytes,
        trace=given.trace,
    )


def _breaker_policy(settings: Settings) -> BreakerPolicy:
    traffic = settings.traffic
    return BreakerPolicy(
        failure_rate=traffic.breaker_failure_rate,
        minimum_calls=traffic.breaker_minimum_calls,
        open_seconds=traffic.breaker_open_seconds,
        shut_out_seconds=traffic.breaker_challenge_seconds,
    )


def _retry_budget(settings: Settings, retries: int) -> RetryBudget:
    return RetryBudget(fraction=settings.traffic.retry_budget, reserve=max(_RETRY_RESERVE, retries))


# ── Classes of the operator's own ────────────────────────────────────────────────────────────────────────────────────


def _own_classes(given: _Ingredients) -> list[BaseProvider]:
    """An instance of each class that `PROVIDERS` names."""
    providers = []
    for name in given.settings.upstreams.providers:
        try:
            providers.append(_instance(name))
        except ValueError as error:
            raise SettingsError(f"PROVIDERS: {name} {error}") from error
    return providers


def _instance(name: str) -> BaseProvider:
    """Make a provider of the class `package.module:Class`.

    Raises:
        ValueError: Says why that can't be done. The cause is what the operator's code raised.
    """
    made = _class(name)
    if not (isinstance(made, type) and issubclass(made, BaseProvider)):
        raise ValueError("is not a subclass of app.providers.base.BaseProvider")  # noqa: TRY004 - a value of a setting
    if inspect.isabstract(made):
        raise ValueError(f"lacks {' and '.join(sorted(made.__abstractmethods__))}")
    try:
        inspect.signature(made).bind()
    except TypeError:
        raise ValueError("can't be made: its constructor needs arguments") from None
    try:
        provider = made()
    except Exception as error:  # the operator's code may raise anything
        raise ValueError(f"can't be made: {_told(error)}") from error
    missing = [attribute for attribute in ("name", "models") if not hasattr(provider, attribute)]
    if missing:
        raise ValueError(f"has no {' and no '.join(missing)}")
    return provider


def _class(name: str) -> object:
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"can't be imported: {_told(error)}") from error
        raise ValueError(
            f"names a module that can't be found; put {error.name} next to main.py or on PYTHONPATH"
        ) from None
    except Exception as error:  # the operator's code may raise anything
        raise ValueError(f"can't be imported: {_told(error)}") from error
    if not hasattr(module, class_name):
        raise ValueError("names a class that its module doesn't have")
    return getattr(module, class_name)


def _told(error: Exception) -> str:
    """The error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


# In the order in which a model's name is looked up.
_SOURCES = (
    _Source("KNOWN_MODELS", _kimi_site),
    _Source("PROVIDERS_FILE", _api_upstreams),
    _Source("PROVIDERS", _own_classes),
)
