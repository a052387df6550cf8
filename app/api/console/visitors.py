"""Who looks at a page: the cookie, and what keeps other sites from using it."""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.people.sign_in import NewLogin, Visitor, login_of
from app.storage.audit import Actor
from app.storage.clock import now
from app.storage.database import Connection, Database
from app.storage.keys import key_of
from app.storage.recordings import Recording, running_recordings

_COOKIE, _SECURE_COOKIE = "kimi_console", "__Host-kimi_console"
_SAFE = frozenset({"GET", "HEAD"})
_MOST_FIELDS = 100

Page = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A page that this visitor may not see, or a form that doesn't come from one; says so by its status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def visitor_of(request: Request) -> Visitor | None:
    """Who looks; None for strangers."""
    visitor: Visitor | None = request.scope.get("visitor")
    return visitor


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


def known_visitor(connection: Connection, cookie: str) -> Visitor | None:
    """Who a cookie stands for; None if it counts no more."""
    found = login_of(connection, cookie)
    if found is None:
        return None
    login, person = found
    if person is not None:
        return Visitor(person.name, "admin" if person.role == "admin" else "viewer", login)
    key = key_of(connection, login.key_id or "")
    if key is None or key.state(now()) != "active":
        return None
    return Visitor(key.name, "holder", login, key.id)


class Guard:
    """Lets visitors in, as far as their role allows.

    Args:
        database: Has the logins.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def recognise(self, request: Request) -> None:
        """Find out who looks."""
        cookie = request.cookies.get(_SECURE_COOKIE) or request.cookies.get(_COOKIE)
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
                if request.method not in _SAFE and not await _is_ours(request, visitor.login.csrf):
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


def is_same_origin(request: Request) -> bool:
    """Whether a form was sent by one of our own pages, as far as the browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def next_page(request: Request, wanted: str) -> str:
    """Where to go after signing in: only to a page of ours."""
    home = f"{home_of(request)}/"
    path = wanted.partition("?")[0]
    return wanted if path.startswith(home) and "\\" not in path and "//" not in path else home


def with_login(request: Request, response: Response, new: NewLogin) -> Response:
    """Give a browser its cookie."""
    is_secure = is_https(request)
    response.set_cookie(
        _SECURE_COOKIE if is_secure else _COOKIE,
        new.cookie,
        max_age=round((new.login.expires_at - new.login.created_at) / 1000),
        path="/" if is_secure else home_of(request),
        httponly=True,
        secure=is_secure,
        samesite="strict",
    )
    return response


def without_login(request: Request, response: Response) -> Response:
    """Take a browser's cookie away."""
    response.delete_cookie(_SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(_COOKIE, path=home_of(request))
    return response


def is_https(request: Request) -> bool:
    """Whether the browser speaks https, with us or with a proxy in front."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return (forwarded or request.url.scheme) == "https"


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


async def _is_ours(request: Request, token: str) -> bool:
    """Whether a form was sent by a page of this login."""
    sent = request.headers.get("x-csrf-token") or (await form_of(request)).get("csrf", "")
    return is_same_origin(request) and hmac.compare_digest(sent.encode("utf-8", "replace"), token.encode())
