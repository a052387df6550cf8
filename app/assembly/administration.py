"""The admin API and the console, imported at their first request."""

import importlib
from functools import partial

from starlette.types import ASGIApp

from app import __version__
from app.api.admin.app import admin_app
from app.api.admin.feed import Feed
from app.api.admin.services import AdminServices
from app.api.console.services import ConsoleServices
from app.api.ops import Drain
from app.api.playground_services import PlaygroundServices
from app.assembly.database import Records
from app.assembly.limits import book_of
from app.assembly.resources import Resources
from app.assembly.settings_view import settings_as_they_hold
from app.domain.limits import texts_of
from app.settings import Settings


class Administration:
    """Makes both; they share what they work with."""

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        records: Records,
        drain: Drain,
        playground: PlaygroundServices,
    ) -> None:
        self._records = records
        self._playground = playground
        self._without_database = settings.limits.without_database
        fixed = {scope.text: texts_of(limits) for scope, limits in settings.limits.fixed.items() if limits}
        if settings.limits.default:
            fixed["key:*"] = settings.limits.default
        self._services = AdminServices(
            database=records.database,
            feed=Feed(records.database, lambda: drain.active),
            registry=resources.registry,
            upstreams=records.upstreams,
            upstream_faults=lambda: records.upstream_follower.faults,
            take_in=records.take_in,
            sessions=resources.sessions,
            state=resources.metrics.read_state,
            settings=partial(settings_as_they_hold, settings),
            zone=settings.limits.zone,
            wait=settings.limits.wait,
            new_book=partial(book_of, settings.limits),
            fixed_limits=fixed,
            environment_keys=[caller.id for caller in playground.environment],
            version=__version__,
            worker=records.worker.id,
            started_at=records.worker.started_at,
        )

    def api(self) -> ASGIApp:
        """The admin API."""
        return admin_app(self._services)

    def console(self) -> ASGIApp:
        """The console."""
        # Imported only now: it brings Jinja2.
        app: ASGIApp = importlib.import_module("app.api.console.app").console_app(
            ConsoleServices(
                admin=self._services,
                keys=self._records.keyring,
                overview=self._records.limits.overview,
                playground=self._playground,
                without_database=self._without_database,
            )
        )
        return app
