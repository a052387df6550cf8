"""The admin API, imported at its first request."""

from functools import partial

from starlette.types import ASGIApp

from app import __version__
from app.api.admin.app import admin_app
from app.api.admin.services import AdminServices
from app.api.ops import Drain
from app.api.wire.addresses import TrustedProxies
from app.assembly.limits import book_of
from app.assembly.resources import Resources
from app.domain.caller import caller_of_key
from app.domain.limits import texts_of
from app.settings import Settings
from app.settings.holding import settings_as_they_hold
from app.storage.spent import name_of


def make_admin_app(settings: Settings, resources: Resources, drain: Drain) -> ASGIApp:
    """Make it.

    Raises:
        RuntimeError: There is no database.
    """
    records = resources.records
    if records is None:
        raise RuntimeError("the admin API needs a database")
    fixed = {name_of(scope).rstrip(":"): texts_of(limits) for scope, limits in settings.limits.fixed.items() if limits}
    if settings.limits.default:
        fixed["key:*"] = settings.limits.default
    return admin_app(
        AdminServices(
            database=records.database,
            registry=resources.registry,
            sessions=resources.sessions,
            is_stopping=lambda: drain.active,
            proxies=TrustedProxies(settings.listening.forwarded_allow_ips),
            state=resources.metrics.read_state,
            settings=partial(settings_as_they_hold, settings),
            zone=settings.limits.zone,
            wait=settings.limits.wait,
            new_book=partial(book_of, settings.limits),
            fixed_limits=fixed,
            environment_keys=[caller_of_key(key).id for key in settings.access.api_keys],
            version=__version__,
            worker=records.worker.id,
            started_at=records.worker.started_at,
        )
    )
