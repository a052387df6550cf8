"""Lets requests in by their API key, except at public addresses."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.error_responses import error_response, refused_preflight
from app.api.request import RequestContext
from app.domain import caller as callers
from app.domain.caller import Caller, caller_of_key
from app.domain.errors import GatewayError, InvalidApiKey, MissingScope
from app.observe.logging import access_fields

# Anthropic's, and Azure's or Google's: where both are, Azure's counts, and so it does in nginx.conf.
_KEY_HEADERS = ((b"x-api-key",), (b"api-key", b"x-goog-api-key"))
_ANYBODY = Caller("anonymous")
_IN_THE_URL = re.compile(rb"(?:^|&)key=")
_NOT_IN_THE_URL = "A key in the URL isn't taken: URLs are kept in logs."
# Of a wrong key its ends are told, so that its owner knows which one it was; of a shorter one nothing.
_TELLING_LENGTH = 16
_END_LENGTH = 4


class IssuedKeys(Protocol):
    """The keys that the gateway has given out."""

    def caller(self, presented: bytes) -> Caller | None:
        """The caller of a key that opens and is known already. At once."""
        ...

    async def look_up(self, presented: bytes) -> Caller | None:
        """The caller of a key; None for one that was never given out.

        Raises:
            InvalidApiKey: It doesn't open any more.
            KeyStoreUnavailable: Nobody knows at the moment.
        """
        ...


class Logins(Protocol):
    """The logins of the console."""

    async def caller(self, request: Request) -> Caller | None:
        """Who is signed in; None for a request without a cookie.

        Raises:
            LoginExpired: The cookie stands for no login that counts.
            CrossSiteRequest: Another site may have sent the request.
            KeyStoreUnavailable: Nobody knows at the moment.
        """
        ...


class ApiKeys:
    """The keys of the environment; only their digests are kept.

    Args:
        keys: Each belongs to a caller of its own.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._callers = {hashlib.sha256(key.encode()).digest(): caller_of_key(key) for key in keys}

    def caller(self, presented: bytes) -> Caller | None:
        """The owner of a key, or None.

        How long it takes tells nothing about how much of a key is right: what is looked up is its digest, which nobody
        can choose.
        """
        return self._callers.get(hashlib.sha256(presented).digest())


class AuthMiddleware:
    """Puts the caller into the request's context, or answers 401.

    Args:
        keys: Who may come in; None lets everybody in as one anonymous caller.
        public_paths: Addresses that need no key.
        special: Addresses that other keys open.
        issued: Who else may come in.
        scopes: What a key needs for an address, where that is not `chat`.
        administration: The beginning of the addresses for which it needs `admin`, or `admin:read` to look; None if
            there are none.
        logins: Makes those that open these addresses to requests without a key; None if there are none.
        pages: The beginning of the addresses that need no key, because they know their visitors by a cookie; None if
            there are none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys | None,
        public_paths: Collection[str],
        special: Mapping[str, ApiKeys] | None = None,
        issued: IssuedKeys | None = None,
        scopes: Mapping[str, callers.Scope] | None = None,
        administration: str | None = None,
        logins: Callable[[], Logins] | None = None,
        pages: str | None = None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._public_paths = frozenset(public_paths)
        self._special = dict(special or {})
        self._issued = issued
        self._scopes = dict(scopes or {})
        self._administration = administration
        self._logins = logins
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http" or scope["path"] in self._public_paths:
            await self._app(scope, receive, send)
            return
        context: RequestContext = scope["context"]
        keys = self._special.get(scope["path"], self._keys)
        caller = _ANYBODY if keys is None else _caller(keys, self._issued, context.headers)
        try:
            if caller is None and self._pages is not None and scope["path"].startswith(self._pages):
                await self._app(scope, receive, send)  # which knows its visitors by a cookie
                return
            if caller is None:
                caller = await self._looked_up(scope, context)
            needed = self._needed(scope["method"], scope["path"], caller)
            if needed not in caller.scopes:
                caller = await self._instead(scope, context, caller, needed)
        except GatewayError as refusal:
            if isinstance(refusal, InvalidApiKey):
                context.shut_out = refusal.caller
            await error_response(refusal, context)(scope, receive, send)
            return
        context.caller = caller
        access_fields.get({})["caller"] = caller.id
        await self._app(scope, receive, send)

    def _needed(self, method: str, path: str, caller: Caller) -> callers.Scope:
        """The scope that a request needs. Who may change things may look, too."""
        if self._administration is None or not path.startswith(self._administration):
            return self._scopes.get(path, "chat")
        return "admin:read" if method in ("GET", "HEAD") and "admin" not in caller.scopes else "admin"

    async def _instead(self, scope: Scope, context: RequestContext, caller: Caller, needed: callers.Scope) -> Caller:
        """Who may do what this caller may not, or the refusal: where nobody needs a key, administration does."""
        if caller is _ANYBODY:
            caller = await self._looked_up(scope, context)
            needed = self._needed(scope["method"], scope["path"], caller)
            if needed in caller.scopes:
                return caller
        context.caller = caller
        raise missing_scope(scope, needed, "do this")

    async def _looked_up(self, scope: Scope, context: RequestContext) -> Caller:
        """The caller of a key that isn't known yet, or of a login, or the refusal."""
        if preflight := refused_preflight(scope["method"], context.headers):
            raise preflight
        keys = _keys_elsewhere(context.headers)
        if self._issued is not None:
            for key in keys:
                if caller := await self._issued.look_up(key):
                    return caller
        if (
            not keys
            and self._logins is not None
            and self._administration is not None
            and scope["path"].startswith(self._administration)
            and (caller := await self._logins().caller(Request(scope)))
        ):
            return caller
        raise _refusal(context, scope.get("query_string", b""))


def missing_scope(scope: Scope, needed: callers.Scope, what: str) -> MissingScope:
    """The refusal of what a key or a login may not do.

    Args:
        what: What was tried, as a verb.
    """
    who = "login" if scope.get("visitor") is not None else "API key"
    return MissingScope(f"This {who} may not {what}: it lacks the scope {needed!r}.")


def _caller(keys: ApiKeys, issued: IssuedKeys | None, headers: Mapping[bytes, bytes]) -> Caller | None:
    """The owner of the presented key, if it is known. A client may send several; one of them has to open."""
    scheme, _, bearer = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and (caller := _known(keys, issued, bearer.strip())):
        return caller
    return next((caller for key in _keys_elsewhere(headers) if (caller := _known(keys, issued, key))), None)


def _known(keys: ApiKeys, issued: IssuedKeys | None, key: bytes) -> Caller | None:
    return keys.caller(key) or (None if issued is None else issued.caller(key))


def _keys_elsewhere(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """The keys in headers of their own, or behind no `Bearer` or several."""
    found = [next((key for name in names if (key := headers.get(name, b"").strip())), b"") for names in _KEY_HEADERS]
    words = headers.get(b"authorization", b"").split()
    if words and all(word.lower() == b"bearer" for word in words[:-1]) and words[-1].lower() != b"bearer":
        found.insert(0, words[-1])
    return [key for key in found if key]


def _refusal(context: RequestContext, query: bytes) -> InvalidApiKey:
    """What is wrong with the key, in the words by which clients tell it from other errors."""
    how = f"Send it as 'Authorization: Bearer KEY' or as '{context.error_form.key_header}: KEY'."
    presented = _keys_elsewhere(context.headers)
    if presented:
        return InvalidApiKey(f"Incorrect API key provided: {_masked(presented[0])}. {how}")
    if _IN_THE_URL.search(query):
        return InvalidApiKey(f"{_NOT_IN_THE_URL} {how}")
    return InvalidApiKey(f"You didn't provide an API key. {how}")


def _masked(key: bytes) -> str:
    """A key that nobody can use, with its ends if it is long enough for them to give nothing away."""
    if len(key) < _TELLING_LENGTH or not key.isascii() or not key.decode().isprintable():
        return "***"
    return f"{key[:_END_LENGTH].decode()}***{key[-_END_LENGTH:].decode()}"
