"""People who may sign in: added, let in by a link, disabled."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.rendering import Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Refused, actor_of, form_of, home_of
from app.api.logins import visitor_of
from app.api.pages.addresses import gateway_address
from app.people.administration import (
    PersonFault,
    disable_person,
    enable_person,
    make_ticket_for,
    new_person,
    person_to_change,
)
from app.people.history import note_changed, note_created, note_link
from app.people.sign_in import TICKET_MINUTES
from app.storage.database import Connection
from app.storage.people import Person, list_people


class PeoplePages:
    """See the module."""

    def __init__(self, services: ConsoleServices, rendering: Rendering) -> None:
        self._database = services.admin.database
        self._rendering = rendering

    async def show(self, request: Request) -> Response:
        """All people."""
        return await self._shown(request)

    async def add(self, request: Request) -> Response:
        """Add somebody, and show the link for the first login, once."""
        form, actor = await form_of(request), actor_of(request)
        name, role = form.get("name", "").strip(), form.get("role", "viewer")

        def add(connection: Connection) -> tuple[Person, str]:
            person = new_person(connection, name, role)
            note_created(connection, actor, person)
            return person, make_ticket_for(connection, person)

        try:
            person, ticket = await self._database.run(add)
        except PersonFault as fault:
            return await self._shown(request, fault=str(fault), name=name)
        return self._link(request, person, ticket)

    async def act(self, request: Request) -> Response:
        """Make a link for somebody, or disable or enable them."""
        person_id = request.path_params["person_id"]
        work = self._work(request, request.path_params["action"])

        def act(connection: Connection) -> tuple[Person, str]:
            person = person_to_change(self._database, connection, person_id)
            if person is None:
                raise Refused(HTTPStatus.NOT_FOUND, "missing")
            return person, work(connection, person)

        try:
            person, ticket = await self._database.run(act)
        except PersonFault as fault:
            return await self._shown(request, fault=str(fault))
        if ticket:
            return self._link(request, person, ticket)
        return RedirectResponse(f"{home_of(request)}/people", HTTPStatus.SEE_OTHER)

    def _work(self, request: Request, action: str) -> Callable[[Connection, Person], str]:
        """What an action does; it returns the ticket of a link, if it makes one."""
        visitor, actor = visitor_of(request), actor_of(request)

        def make_link(connection: Connection, person: Person) -> str:
            ticket = make_ticket_for(connection, person)
            note_link(connection, actor, person)
            return ticket

        def disable(connection: Connection, person: Person) -> str:
            if visitor is not None:
                disabled = disable_person(connection, person, visitor.login)
                note_changed(connection, actor, "person.disable", person, disabled)
            return ""

        def enable(connection: Connection, person: Person) -> str:
            note_changed(connection, actor, "person.enable", person, enable_person(connection, person))
            return ""

        works: dict[str, Callable[[Connection, Person], str]] = {
            "link": make_link,
            "disable": disable,
            "enable": enable,
        }
        if action not in works:
            raise Refused(HTTPStatus.NOT_FOUND, "missing")
        return works[action]

    def _link(self, request: Request, person: Person, ticket: str) -> Response:
        link = f"{gateway_address(request)}/console/sign-in#{ticket}"
        return self._rendering.page(request, "person_link", person=person, link=link, minutes=TICKET_MINUTES)

    async def _shown(self, request: Request, *, fault: str = "", **values: Any) -> Response:
        people = await self._database.report(list_people)
        status = 400 if fault else 200
        return self._rendering.page(request, "people", status=status, people=people, fault=fault, values=values)
