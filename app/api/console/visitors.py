"""Who looks at a page, and what they may see."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.logins import TOKEN_HEADER, cookie_of, is_ours, visitor_of
from app.people.sign_in import Visitor, known_visitor
from app.storage.audit import Actor
from app.storage.database import Connection, Database
from app.storage.recordings import Recording, running_recordings

_SAFE = frozenset({"GET", "HEAD"})
_MOST_FIELDS = 100

Page = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A page that this visitor may not see, or a form that doesn't come from one; says so by its status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def recordings_of(request: Request) -> Sequence[Recording]:
    """The recordings that run, as far as whoever looks may know: every page is marked with them."""
    recordings: Sequence[Recording] = request.scope.get("recordings", ())
    return recordings


def actor_of(request: Request) -> Actor:
    """Who looks, for the log of changes."""
    visitor = visitor_of(request)
    client = request.client
    name = "nobody" if visitor is None else visitor.actor
    return Actor(name, "console", client.host if client else None)


class Guard:
    """Lets visitors in, as far as their role allows.

    Args:
        database: Has the logins.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def recognise(self, request: Request) -> None:
        """Find out who looks."""
        cookie = cookie_of(request)
        if cookie:

            def read(connection: Connection) -> tuple[Visitor | None, list[Recording]]:
                visitor = known_visitor(connection, cookie)
                return visitor, [] if visitor is None else running_recordings(connection, visitor.key_id)

            request.scope["visitor"], request.scope["recordings"] = await self._database.run(read)

    def only(self, *roles: str) -> Callable[[Page], Page]:
        """For a page that only some roles see. Strangers are asked to sign in, and come back."""

        def wrap(page: Page) -> Page:
            async def guarded(request: Request) -> Response:
                if "\0" in request.scope["path"] or any("\0" in value for value in request.query_params.values()):
                    raise Refused(HTTPStatus.NOT_FOUND, "missing")  # no database can look for it
                await self.recognise(request)
                visitor = visitor_of(request)
                if visitor is None:
                    return to_sign_in(request)
                if visitor.role not in roles:
                    raise Refused(HTTPStatus.FORBIDDEN, "role")
                if request.method not in _SAFE and not await _is_sent_by(request, visitor):
                    raise Refused(HTTPStatus.FORBIDDEN, "form")
                return await page(request)

            return guarded

        return wrap


def to_sign_in(request: Request) -> Response:
    """Ask a stranger to sign in. A form that was sent is lost: its page is shown again afterwards."""
    home = home_of(request)
    wanted = home + page_path(request) + (f"?{request.url.query}" if request.url.query else "")
    address = f"{home}/sign-in?next={quote(wanted)}"
    return RedirectResponse(address, HTTPStatus.SEE_OTHER, headers={"cache-control": "no-store"})


def home_of(request: Request) -> str:
    """Where the console is, as the browser has it, without a slash at its end."""
    return f"{request.scope.get('root_path', '')}/console"


def page_path(request: Request) -> str:
    """Where a page is below `/console`. A proxy's prefix may have been taken off its address, or not."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", "")).removeprefix("/console")


def next_page(request: Request, wanted: str) -> str:
    """Where to go after signing in: only to a page of ours."""
    home = f"{home_of(request)}/"
    path = wanted.partition("?")[0]
    return wanted if path.startswith(home) and "\\" not in path and "//" not in path else home


async def form_of(request: Request) -> dict[str, str]:
    """What a form has sent; of several fields of one name the last one."""
    body = await request.body()
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "form") from None
    # No database can look for it.
    if any("\0" in value for _, value in fields):
        raise Refused(HTTPStatus.BAD_REQUEST, "form")
    return dict(fields)


async def _is_sent_by(request: Request, visitor: Visitor) -> bool:
    """Whether a form was sent by a page of this login."""
    token = request.headers.get(TOKEN_HEADER) or (await form_of(request)).get("csrf", "")
    return is_ours(request, visitor, token)
