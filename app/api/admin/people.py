"""People who may sign in to the console: added, changed, let in by links, signed out."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from msgspec.structs import replace
from pydantic import AwareDatetime, BaseModel, Field

from app.api.admin.common import (
    Body,
    Cursor,
    Endpoint,
    IdempotencyKey,
    IfMatch,
    Limit,
    Page,
    Writer,
    change,
    check_version,
    once,
    read,
    router_of,
    sliced,
    time_at,
    with_etag,
)
from app.api.admin.services import AdminServices
from app.api.logins import visitor_of
from app.api.pages.addresses import gateway_address
from app.api.request import caller_of
from app.domain.errors import InvalidRequest, NotFound
from app.people.administration import (
    PersonFault,
    end_logins,
    make_ticket_for,
    new_person,
    person_to_change,
    update_person,
)
from app.people.history import note_changed, note_created, note_link, note_logins_ended
from app.people.sign_in import TICKET_MINUTES, where_signed_in
from app.storage.clock import now
from app.storage.database import Connection
from app.storage.people import Login, find_person, list_people
from app.storage.people import Person as StoredPerson

Role = Annotated[Literal["admin", "viewer"], Field(description="`viewer` may only look.")]
_TICKET_MILLISECONDS = TICKET_MINUTES * 60_000


class Person(BaseModel):
    """Somebody who may sign in to the console."""

    id: str
    name: str
    role: Role
    disabled: bool
    has_password: Annotated[bool, Field(description="If not, links are the only way in.")]
    created_at: AwareDatetime


class NewPerson(Body):
    """A person to be added."""

    name: str
    role: Role = "viewer"


class PersonPatch(Body):
    """What is to be changed of a person: absent fields stay; none can be null."""

    # By factories: what stands for an absent field is nobody's default.
    name: str = Field(default_factory=str)
    role: Role = Field(default_factory=lambda: "viewer")
    disabled: Annotated[bool, Field(strict=True)] = Field(default_factory=bool)


class PersonWithLink(BaseModel):
    """A link that signs a person in once; it is shown this once. A request sent again is answered without it."""

    person: Person
    link: str | None
    link_shown: bool
    expires_at: AwareDatetime | None


class PersonLogin(BaseModel):
    """Where a person is signed in."""

    id: Annotated[str, Field(description="A digest: it opens nothing.")]
    created_at: AwareDatetime
    seen_at: Annotated[AwareDatetime, Field(description="To five minutes.")]
    expires_at: AwareDatetime
    browser: Annotated[str, Field(description="As it calls itself.")]


class Me(BaseModel):
    """Who asks."""

    id: Annotated[str, Field(description="Of the key, or of the person who is signed in.")]
    name: str
    scopes: list[str]
    csrf_token: Annotated[
        str | None,
        Field(description="Of the login: changes by the console's cookie need it as `X-CSRF-Token`. Null for a key."),
    ]


class PeopleEndpoints:
    """`/people`, and `/me`.

    Args:
        services: What the admin API works with.
    """

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database

    def router(self) -> APIRouter:
        """The routes."""
        one, logins = "/people/{person_id}", "/people/{person_id}/logins"
        return router_of(
            "people",
            Endpoint("GET", "/me", self.me, "Who asks"),
            Endpoint("GET", "/people", self.list_all, "List people"),
            Endpoint("POST", "/people", self.create, "Add a person", status=201, errors=(409,)),
            Endpoint("GET", one, self.get, "Read a person", errors=(404,)),
            Endpoint("PATCH", one, self.patch, "Change a person", errors=(404, 412)),
            Endpoint("POST", f"{one}/link", self.make_link, "Make a link that signs in once", errors=(404, 409, 412)),
            Endpoint("GET", logins, self.list_logins, "List where a person is signed in", errors=(404,)),
            Endpoint("DELETE", logins, self.end_all_logins, "Sign a person out everywhere", status=204, errors=(404,)),
            Endpoint(
                "DELETE", f"{logins}/{{login_id}}", self.end_login, "Sign a person out", status=204, errors=(404,)
            ),
        )

    async def me(self, request: Request) -> Me:
        """The key, or the person by whose cookie the request came, with the token that a page's script needs."""
        caller, visitor = caller_of(request), visitor_of(request)
        return Me(
            id=caller.id,
            name=caller.name,
            scopes=sorted(caller.scopes),
            csrf_token=None if visitor is None else visitor.login.csrf,
        )

    async def list_all(self, cursor: Cursor = None, limit: Limit = 50) -> Page[Person]:
        """By name."""
        people = [_shown(person) for person in await read(self._database, list_people)]
        return sliced(people, lambda person: (person.name,), cursor, limit, str)

    async def create(
        self, body: NewPerson, actor: Writer, response: Response, idempotency_key: IdempotencyKey = None
    ) -> Person:
        """Who signs in by a link, which is another request. The same request sent again gets a 200."""

        def make(connection: Connection) -> tuple[Person, bool]:
            def do() -> tuple[Person, dict[str, object]]:
                person = new_person(connection, body.name, body.role)
                note_created(connection, actor, person)
                return _shown(person), {"id": person.id}

            request = ["person.create", body.model_dump(mode="json")]
            made, known = once(connection, actor, idempotency_key, request, do)
            return (made, True) if made is not None else (_shown(_only(connection, known["id"])), False)

        try:
            person, is_new = await change(self._database, make)
        except PersonFault as fault:
            raise _refusal(fault) from None
        if not is_new:
            response.status_code = 200
        return with_etag(response, person)

    async def get(self, person_id: str, response: Response) -> Person:
        """With their version as `ETag`."""
        person = await read(self._database, lambda connection: _shown(_only(connection, person_id)))
        return with_etag(response, person)

    async def patch(
        self, person_id: str, body: PersonPatch, actor: Writer, response: Response, if_match: IfMatch = None
    ) -> Person:
        """A merge patch; it counts at once. Whoever is disabled is signed out everywhere, and links stop opening."""

        def patched(connection: Connection) -> Person:
            before = self._to_change(connection, person_id, if_match)
            after = update_person(connection, replace(before, **_fields(body.given(), before)))
            note_changed(connection, actor, "person.update", before, after)
            return _shown(after)

        try:
            person = await change(self._database, patched)
        except PersonFault as fault:
            raise _refusal(fault) from None
        return with_etag(response, person)

    async def make_link(
        self,
        person_id: str,
        actor: Writer,
        request: Request,
        response: Response,
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> PersonWithLink:
        """It opens once, within a quarter of an hour. It is in this answer only."""
        address = f"{gateway_address(request)}/console/sign-in"

        def make(connection: Connection) -> PersonWithLink:
            def do() -> tuple[PersonWithLink, dict[str, object]]:
                person = self._to_change(connection, person_id, if_match)
                ticket = make_ticket_for(connection, person)
                note_link(connection, actor, person)
                return PersonWithLink(
                    person=_shown(person),
                    link=f"{address}#{ticket}",
                    link_shown=True,
                    expires_at=time_at(now() + _TICKET_MILLISECONDS),
                ), {}

            made, _ = once(connection, actor, idempotency_key, ["person.link", person_id], do)
            return made or PersonWithLink(
                person=_shown(_only(connection, person_id)), link=None, link_shown=False, expires_at=None
            )

        try:
            answer = await change(self._database, make)
        except PersonFault as fault:
            raise _refusal(fault) from None
        return with_etag(response, answer, answer.person)

    async def list_logins(self, person_id: str, cursor: Cursor = None, limit: Limit = 50) -> Page[PersonLogin]:
        """The newest first."""

        def listed(connection: Connection) -> list[PersonLogin]:
            person = _only(connection, person_id)
            return [_login(login) for login in where_signed_in(connection, person_id=person.id)]

        logins = await read(self._database, listed)
        return sliced(logins, lambda one: (-round(one.created_at.timestamp() * 1000), one.id), cursor, limit, int, str)

    async def end_all_logins(self, person_id: str, actor: Writer) -> None:
        """The person can sign in again, also by a link that was made before."""
        await self._end_logins(person_id, actor)

    async def end_login(self, person_id: str, login_id: str, actor: Writer) -> None:
        """In one place."""
        if not await self._end_logins(person_id, actor, login_id):
            raise NotFound("There is no such login, or it has ended.", param="login_id")

    async def _end_logins(self, person_id: str, actor: Writer, login_id: str | None = None) -> int:
        def end(connection: Connection) -> int:
            person = _only(connection, person_id)
            ended = end_logins(connection, person, login_id)
            if ended:
                note_logins_ended(connection, actor, person, ended)
            return ended

        return await change(self._database, end)

    def _to_change(self, connection: Connection, person_id: str, if_match: str | None) -> StoredPerson:
        person = _found(person_to_change(self._database, connection, person_id), person_id)
        check_version(_shown(person), if_match)
        return person


def _only(connection: Connection, person_id: str) -> StoredPerson:
    return _found(find_person(connection, person_id=person_id), person_id)


def _found(person: StoredPerson | None, person_id: str) -> StoredPerson:
    if person is None:
        raise NotFound(f"There is no person {person_id[:50]!r}.", param="person_id")
    return person


def _fields(given: dict[str, Any], before: StoredPerson) -> dict[str, Any]:
    """The fields of a patch, as a stored person has them."""
    fields = dict(given)
    if "disabled" in fields:
        fields["disabled_at"] = (before.disabled_at or now()) if fields.pop("disabled") else None
    return fields


def _refusal(fault: PersonFault) -> InvalidRequest:
    return InvalidRequest(str(fault), param=fault.param)


def _shown(person: StoredPerson) -> Person:
    return Person(
        id=person.id,
        name=person.name,
        role="admin" if person.role == "admin" else "viewer",
        disabled=person.disabled_at is not None,
        has_password=person.password is not None,
        created_at=time_at(person.created_at),
    )


def _login(login: Login) -> PersonLogin:
    return PersonLogin(
        id=login.digest,
        created_at=time_at(login.created_at),
        seen_at=time_at(login.seen_at),
        expires_at=time_at(login.expires_at),
        browser=login.agent,
    )
