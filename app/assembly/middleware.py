"""The layers around the routes."""

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, cast

import structlog
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.api.dialects import Dialect
from app.api.error_responses import openai_errors
from app.api.gemini.errors import GEMINI_ERRORS
from app.api.middleware.auth import ApiKeys, AuthMiddleware, Logins
from app.api.middleware.context import RequestContextMiddleware
from app.api.middleware.intake import IntakeMiddleware
from app.api.middleware.tracing import TracingMiddleware
from app.api.pages.docs import ASSET_PATHS
from app.api.refusals import Refusals
from app.api.relay.endpoints import RELAY_ERRORS, RelayedEndpoint
from app.api.wire.addresses import ADMINISTRATION, CONSOLE, GENERATE, GENERATE_STREAM, TrustedProxies
from app.assembly.resources import Resources
from app.settings import Settings

if TYPE_CHECKING:
    from app.storage.database import Database

PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"}) | ASSET_PATHS
# Pages that are served by this machine itself, at any port.
_LOCAL_ORIGIN = r"https?://(localhost|[a-z0-9.-]+\.localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?"
_READABLE_HEADERS = (
    "age openai-processing-ms request-id retry-after x-cache x-context-dropped x-context-shortened x-fallback "
    "x-ignored-params x-prompt-chars x-prompt-tokens x-provider x-request-id x-session-action x-session-id"
)


def middleware(
    settings: Settings, resources: Resources, dialects: Sequence[Dialect], relayed: Sequence[RelayedEndpoint]
) -> list[Middleware]:
    """List the layers in the order in which a request meets them.

    Args:
        dialects: The first one whose request it is says how its errors are written.
        relayed: The endpoints that are passed on.
    """
    names = {dialect.path: dialect.name for dialect in dialects}
    names |= {endpoint.address: endpoint.name for endpoint in relayed}
    forms = {dialect.path: dialect.errors for dialect in dialects}
    forms |= {endpoint.address: RELAY_ERRORS for endpoint in relayed}
    # The dialect itself is imported at its first request.
    names |= dict.fromkeys((GENERATE, GENERATE_STREAM), "gemini")
    forms |= dict.fromkeys((GENERATE, GENERATE_STREAM), GEMINI_ERRORS)
    layers = [
        Middleware(
            RequestContextMiddleware,
            metrics=resources.metrics,
            error_forms=[
                *(openai_errors(ADMINISTRATION), RELAY_ERRORS),
                *(*(dialect.errors for dialect in dialects), GEMINI_ERRORS),
            ],
            endpoints=forms,
            proxies=TrustedProxies(settings.listening.forwarded_allow_ips),
            refusals=Refusals(
                names,
                () if resources.records is None else (resources.records.ledger.call_ended,),
            ),
        )
    ]
    if resources.tracing is not None:
        layers.append(Middleware(TracingMiddleware, open_span=resources.tracing.request))
    if settings.access.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.access.cors_origins,
                allow_origin_regex=_LOCAL_ORIGIN if "localhost" in settings.access.cors_origins else None,
                allow_private_network=True,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_READABLE_HEADERS.split(),
            )
        )
    # Before the sizes: what a known key is refused is in the ledger.
    layers.append(_auth(settings, resources))
    layers.append(
        Middleware(
            IntakeMiddleware,
            max_bytes=settings.listening.max_body_bytes,
            upload_paths=[endpoint.address for endpoint in relayed if endpoint.is_form],
            max_upload_bytes=settings.listening.max_upload_bytes,
            max_headers=settings.listening.max_headers,
            lag=resources.loop_lag,
            max_lag=settings.listening.max_loop_lag,
        )
    )
    return layers


def _auth(settings: Settings, resources: Resources) -> Middleware:
    access = settings.access
    if access.auth_disabled:
        structlog.get_logger("kimi.assembly").warning(
            "auth_disabled", meaning="everybody who reaches this port may use it"
        )
    metrics_key = access.metrics_key.get_secret_value()
    guarded = not access.auth_disabled or bool(metrics_key)
    return Middleware(
        AuthMiddleware,
        keys=None if access.auth_disabled else ApiKeys(access.api_keys),
        public_paths=PUBLIC_PATHS,
        special={"/metrics": ApiKeys([*access.api_keys, *filter(None, [metrics_key])])} if guarded else {},
        issued=None if resources.records is None else resources.records.keyring,
        scopes={"/metrics": "metrics"},
        # Without a database there is no admin API, and no key for it: whoever may chat is told so.
        administration=None if resources.records is None else ADMINISTRATION,
        logins=None if resources.records is None else _logins(resources.records.database),
        pages=None if resources.records is None else CONSOLE,
    )


def _logins(database: "Database") -> Callable[[], Logins]:
    # Imported at the first request with a cookie: most workers never get one.
    return cache(lambda: cast("Logins", importlib.import_module("app.api.logins").Logins(database)))
