"""Logins of the console: the cookie that stands for one, and what keeps other sites from using it.

The admin API takes them, too. It is imported at the first request with such a cookie.
"""

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from app.domain.caller import Caller, Scope
from app.domain.errors import CrossSiteRequest, KeyStoreUnavailable, LoginExpired
from app.people.sign_in import NewLogin, Role, Visitor, known_visitor
from app.storage.database import Database, DatabaseAway

TOKEN_HEADER = "x-csrf-token"  # noqa: S105 - its name
_COOKIE, _SECURE_COOKIE = "kimi_console", "__Host-kimi_console"
# Where it is sent over http: applications at other ports of this host shouldn't get it.
_PLACES = ("/console", "/admin")
_SAFE = frozenset({"GET", "HEAD"})
_RETRY_SECONDS = 2.0
_SCOPES: dict[Role, frozenset[Scope]] = {
    "admin": frozenset({"admin"}),
    "viewer": frozenset({"admin:read"}),
    "holder": frozenset(),
}


def visitor_of(request: Request) -> Visitor | None:
    """Who is signed in; None for strangers, and for whoever comes with a key."""
    visitor: Visitor | None = request.scope.get("visitor")
    return visitor


def cookie_of(request: Request) -> str | None:
    """The cookie that stands for a login."""
    return request.cookies.get(_SECURE_COOKIE) or request.cookies.get(_COOKIE)


def with_login(request: Request, response: Response, new: NewLogin) -> Response:
    """Give a browser its cookie."""
    is_secure = is_https(request)
    for path in ("/",) if is_secure else _places(request):
        response.set_cookie(
            _SECURE_COOKIE if is_secure else _COOKIE,
            new.cookie,
            max_age=round((new.login.expires_at - new.login.created_at) / 1000),
            path=path,
            httponly=True,
            secure=is_secure,
            samesite="strict",
        )
    return response


def without_login(request: Request, response: Response) -> Response:
    """Take a browser's cookie away."""
    response.delete_cookie(_SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    for path in _places(request):
        response.delete_cookie(_COOKIE, path=path)
    return response


def _places(request: Request) -> list[str]:
    return [f"{request.scope.get('root_path', '')}{place}" for place in _PLACES]


def is_https(request: Request) -> bool:
    """Whether the browser speaks https, with us or with a proxy in front."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return (forwarded or request.url.scheme) == "https"


def is_same_origin(request: Request) -> bool:
    """Whether a request was sent by one of our own pages, as far as the browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def is_ours(request: Request, visitor: Visitor, token: str) -> bool:
    """Whether a request was sent by a page of this login.

    Args:
        token: The one that came with it.
    """
    return is_same_origin(request) and hmac.compare_digest(
        token.encode("utf-8", "replace"), visitor.login.csrf.encode()
    )


def check_token(request: Request) -> None:
    """Refuse what a page of another site may have sent. Nobody can make a browser send a key.

    Raises:
        CrossSiteRequest: It came by a cookie, and without the login's token.
    """
    visitor = visitor_of(request)
    if visitor is not None and not is_ours(request, visitor, request.headers.get(TOKEN_HEADER, "")):
        raise CrossSiteRequest(
            "A request with the console's cookie needs the login's token in the header X-CSRF-Token (GET /admin/v1/me "
            "has it), and must come from a page of the gateway's own origin."
        )


class Logins:
    """Who uses the admin API by a cookie.

    Args:
        database: Has the logins.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def caller(self, request: Request) -> Caller | None:
        """Who is signed in, with the scopes of the role; None for a request without a cookie.

        Raises:
            LoginExpired: The cookie stands for no login that counts.
            CrossSiteRequest: Another site may have sent it.
            KeyStoreUnavailable: The database is away, so nobody knows.
        """
        cookie = cookie_of(request)
        if not cookie:
            return None
        try:
            visitor = await self._database.run(lambda connection: known_visitor(connection, cookie))
        except DatabaseAway:
            raise KeyStoreUnavailable(
                "Logins can't be checked at the moment; try again soon.", retry_after=_RETRY_SECONDS
            ) from None
        if visitor is None:
            raise LoginExpired("This login to the console has ended. Sign in again, or send an API key.")
        request.scope["visitor"] = visitor
        if request.method not in _SAFE:
            check_token(request)
        return Caller(visitor.id, visitor.name, scopes=_SCOPES[visitor.role])
