"""The admin API and the console, imported at their first request."""

import importlib
import time
from functools import partial

from starlette.types import ASGIApp

from app import __version__
from app.api.admin.app import admin_app
from app.api.admin.services import AdminServices
from app.api.console.playground_services import PlaygroundServices
from app.api.console.services import ConsoleServices
from app.assembly.limits import book_of, policy_of
from app.assembly.resources import Resources
from app.domain.limits import texts_of
from app.settings import Settings
from app.settings.holding import settings_as_they_hold
from app.storage.spent import name_of

_STARTED_AT = time.time_ns() // 1_000_000


def make_admin_app(settings: Settings, resources: Resources) -> ASGIApp:
    """Make the admin API."""
    return admin_app(_services(settings, resources))


def make_console_app(settings: Settings, resources: Resources, playground: PlaygroundServices) -> ASGIApp:
    """Make the console."""
    services = _services(settings, resources)
    if resources.records is None or resources.limits is None:
        raise RuntimeError("the console needs a database")
    # Imported only now: it brings Jinja2.
    app: ASGIApp = importlib.import_module("app.api.console.app").console_app(
        ConsoleServices(
            admin=services,
            keys=resources.records.keyring,
            overview=resources.limits.overview,
            limits=policy_of(settings.limits),
            make_book=partial(book_of, settings.limits),
            playground=playground,
        )
    )
    return app


def _services(settings: Settings, resources: Resources) -> AdminServices:
    records, limits = resources.records, resources.limits
    if records is None or limits is None:
        raise RuntimeError("the admin API needs a database")
    fixed = {name_of(scope).rstrip(":"): texts_of(limits) for scope, limits in settings.limits.fixed.items() if limits}
    if settings.limits.default:
        fixed["default"] = settings.limits.default
    return AdminServices(
        database=records.database,
        registry=resources.registry,
        sessions=resources.sessions,
        limiter=limits.limiter,
        state=resources.metrics.read_state,
        settings=lambda: settings_as_they_hold(settings),
        zone=settings.limits.time_zone,
        version=__version__,
        started_at=_STARTED_AT,
        fixed_limits=fixed,
    )
