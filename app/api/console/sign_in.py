"""Signing in and out, and one's own account."""

import asyncio
from functools import partial
from http import HTTPStatus

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.console.rendering import LANGUAGES, Rendering
from app.api.console.services import ConsoleServices
from app.api.console.visitors import Guard, Refused, actor_of, form_of, home_of, next_page
from app.api.logins import is_https, is_same_origin, visitor_of, with_login, without_login
from app.domain.errors import GatewayError
from app.people.sign_in import (
    NewLogin,
    Origin,
    SignInFault,
    Visitor,
    end_others,
    hashed_password,
    is_password_of,
    sign_in_checked,
    sign_in_with_key,
    sign_in_with_ticket,
    sign_out,
    where_signed_in,
)
from app.people.tries import Tries
from app.storage.audit import note_action
from app.storage.database import Connection
from app.storage.people import change_person, find_person
from app.storage.request_pages import page_of_rows

_YEAR = 31_536_000


class _TooManyTries(SignInFault):
    """Somebody has tried to sign in too often."""

    def __init__(self) -> None:
        super().__init__("Too many tries. Wait a minute.")


class SignInPages:
    """See the module.

    Args:
        services: What the pages work with.
        rendering: Renders them.
        guard: Knows who looks.
    """

    def __init__(self, services: ConsoleServices, rendering: Rendering, guard: Guard) -> None:
        self._database = services.admin.database
        self._keys = services.keys
        self._rendering = rendering
        self._guard = guard
        # Of all addresses together, and of each. Links are counted by themselves, and only wrong ones: nobody guesses
        # 256 bits, and nobody who tries to can lock out an operator who has a link.
        self._tries = Tries(together=20, each=5, seconds=60.0)
        self._wrong_links = Tries(together=20, each=5, seconds=60.0)

    async def show(self, request: Request) -> Response:
        """The form. Whoever is signed in goes on."""
        await self._guard.recognise(request)
        wanted = next_page(request, request.query_params.get("next", ""))
        if visitor_of(request) is not None:
            return RedirectResponse(wanted, HTTPStatus.SEE_OTHER)
        return self._rendering.page(request, "sign_in", wanted=wanted, fault="", name="")

    async def enter(self, request: Request) -> Response:
        """Sign in by a ticket, a key, or a name and a password."""
        if not is_same_origin(request):
            raise Refused(HTTPStatus.FORBIDDEN, "form")
        form = await form_of(request)
        wanted = next_page(request, form.get("next", ""))
        origin = Origin(request.headers.get("user-agent", ""), request.client.host if request.client else None)
        try:
            new = await self._signed_in(form, origin)
        except SignInFault as fault:
            status = 429 if isinstance(fault, _TooManyTries) else 401
            return self._rendering.page(
                request, "sign_in", status=status, wanted=wanted, fault=str(fault), name=form.get("name", "")
            )
        if wanted == f"{home_of(request)}/" and await self._database.report(partial(_has_to_begin, new)):
            wanted += "welcome"
        return with_login(request, RedirectResponse(wanted, HTTPStatus.SEE_OTHER), new)

    async def account(self, request: Request) -> Response:
        """Who one is, and where one is signed in."""
        return await self._account(request)

    async def end_logins(self, request: Request) -> Response:
        """Sign out elsewhere: in one place, or in all but this one."""
        form, login, actor = await form_of(request), _visitor(request).login, actor_of(request)
        digest = form.get("login", "")

        def end(connection: Connection) -> None:
            if ended := end_others(connection, login, digest or None):
                note_action(connection, actor, "login.end", actor.name, after={"ended": ended})

        await self._database.run(end)
        return RedirectResponse("../account", HTTPStatus.SEE_OTHER)

    async def _account(self, request: Request, *, fault: str = "") -> Response:
        login = _visitor(request).login
        logins = await self._database.report(
            lambda connection: where_signed_in(connection, person_id=login.person_id, key_id=login.key_id)
        )
        return self._rendering.page(request, "account", status=400 if fault else 200, logins=logins, fault=fault)

    async def change_password(self, request: Request) -> Response:
        """Set a password, or with an empty one do without."""
        password = (await form_of(request)).get("password", "") or None
        login, actor = _visitor(request).login, actor_of(request)

        try:
            hashed = None if password is None else await asyncio.to_thread(hashed_password, password)
        except SignInFault as fault:
            return await self._account(request, fault=str(fault))

        def change(connection: Connection) -> None:
            person = find_person(connection, person_id=login.person_id)
            if person is not None:
                change_person(connection, replace(person, password=hashed))
                note_action(connection, actor, "person.password", f"person:{person.id}")

        await self._database.change(change)
        return RedirectResponse("../account?saved=1", HTTPStatus.SEE_OTHER)

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        login = _visitor(request).login
        await self._database.run(lambda connection: sign_out(connection, login))
        return without_login(request, RedirectResponse("../sign-in", HTTPStatus.SEE_OTHER))

    async def choose_look(self, request: Request) -> Response:
        """Choose language and theme; anybody may."""
        if not is_same_origin(request):
            raise Refused(HTTPStatus.FORBIDDEN, "form")
        form = await form_of(request)
        response = RedirectResponse(next_page(request, form.get("next", "")), HTTPStatus.SEE_OTHER)
        path = home_of(request)
        for cookie, value, known in (
            ("kimi_language", form.get("language"), LANGUAGES),
            ("kimi_theme", form.get("theme"), ("light", "dark", "")),
        ):
            if value is not None and value in known:
                response.set_cookie(
                    cookie, value, max_age=_YEAR, path=path, httponly=True, secure=is_https(request), samesite="strict"
                )
        return response

    async def _signed_in(self, form: dict[str, str], origin: Origin) -> NewLogin:
        if ticket := form.get("ticket", "").strip():
            return await self._with_ticket(ticket.rpartition("#")[2], origin)
        if not self._tries.take(origin.address or ""):
            raise _TooManyTries
        if key := form.get("key", "").strip():
            return await self._with_key(key, origin)
        return await self._with_password(form.get("name", "").strip(), form.get("password", ""), origin)

    async def _with_password(self, name: str, password: str, origin: Origin) -> NewLogin:
        person = await self._database.run(lambda connection: find_person(connection, name=name), reads=True)
        # On a thread of its own: the database's has other things to do in the meantime.
        is_right = await asyncio.to_thread(is_password_of, person, password)
        new = None
        if person is not None and is_right:
            new = await self._database.run(lambda connection: sign_in_checked(connection, person, origin))
        if new is None:
            raise SignInFault("Name or password is wrong.")
        return new

    async def _with_ticket(self, ticket: str, origin: Origin) -> NewLogin:
        try:
            return await self._database.run(lambda connection: sign_in_with_ticket(connection, ticket, origin))
        except SignInFault:
            if not self._wrong_links.take(origin.address or ""):
                raise _TooManyTries from None
            raise

    async def _with_key(self, key: str, origin: Origin) -> NewLogin:
        try:
            caller = await self._keys.look_up(key.encode("utf-8", "replace"))
        except GatewayError as error:
            raise SignInFault(error.message) from None
        if caller is None:
            raise SignInFault(
                "This gateway has not issued this key. Keys of API_MASTER_KEY can't sign in here; use a link instead, "
                "made with the command console-link below."
            )
        return await self._database.run(lambda connection: sign_in_with_key(connection, caller.id, origin))


def _visitor(request: Request) -> Visitor:
    visitor = visitor_of(request)
    if visitor is None:
        raise Refused(HTTPStatus.UNAUTHORIZED, "role")
    return visitor


def _has_to_begin(new: NewLogin, connection: Connection) -> bool:
    """Whether somebody has signed in who administers a gateway that has been asked nothing yet."""
    person_id = new.login.person_id
    person = None if person_id is None else find_person(connection, person_id=person_id)
    return person is not None and person.role == "admin" and not page_of_rows(connection, limit=1).rows
