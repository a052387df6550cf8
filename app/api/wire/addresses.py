"""Addresses as clients and proxies write them, and the addresses that they mean. Pure."""

import ipaddress
import re
from collections.abc import Collection

from msgspec import Struct

# Where other addresses are told.
DOCUMENTS = frozenset({"/", "/docs", "/openapi.json"})
# The beginnings of the addresses of console and admin API.
CONSOLE = "/console"
ADMINISTRATION = "/admin/"
PAGES = (CONSOLE, ADMINISTRATION)
# The beginning of the addresses of Google's clients, and those of them at which calls are answered.
GOOGLE = "/v1beta/"
GENERATE = "/v1beta/models/{model}:generateContent"
GENERATE_STREAM = "/v1beta/models/{model}:streamGenerateContent"
_PUBLIC = DOCUMENTS | {"/health", "/ready"}
_NAMES = (
    "chat/+completions|completions|messages/+count_tokens|messages|models|responses|sessions|"
    "embeddings|rerank|moderations|images/+(?:generations|edits|variations)|"
    "audio/+(?:transcriptions|translations|speech)"
)
# A base URL may have been given with too much, too little, or a slash at its end.
_STEP = re.compile(rf"(?:/+v1)*/+({_NAMES})(?=/|$)")
_END = re.compile(rf"/({_NAMES})/*$")
_SLASHES = re.compile("/+")
# Request headers by which Google's clients are told from others.
GOOGLE_MARKS = frozenset({b"x-goog-api-key", b"x-goog-api-client"})
# Google's clients put a version of their own before the models, and what they ask of a model behind its name.
_BEFORE_A_MODEL = re.compile("((?:/+v1(?:beta|alpha)?)*)/+models(?=/|$)")
_LONGEST_METHOD = 40
# Below them there are ids, which may hold anything.
_WITH_IDS = frozenset({"models", "responses", "sessions"})
_SESSION = "/v1/sessions/"
_MODELS = "/v1/models"
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+){1,8}")


class ModelAddress(Struct, frozen=True):
    """An address that names a model, and what is asked of it.

    Args:
        endpoint: The address with `{model}` in place of the name, which is the same for all models.
        model: The model.
        query: What stands behind the address.
    """

    endpoint: str
    model: str
    query: bytes = b""


def model_address(path: str, query: bytes) -> ModelAddress | None:
    """What an address means that is one of Google's for a model; None for any other."""
    found = _BEFORE_A_MODEL.match(path)
    model, _, method = path[found.end() :].strip("/").rpartition(":") if found is not None else ("", "", "")
    if not model or not method.isascii() or not method.isalpha() or len(method) > _LONGEST_METHOD:
        return None
    return ModelAddress(f"{GOOGLE}models/{{model}}:{method}", model, query)


def googles_address(path: str, headers: Collection[bytes]) -> str:
    """The address that Google's clients mean by one that other dialects have, too; for all others the same."""
    if f"{path}/".startswith(f"{_MODELS}/") and not GOOGLE_MARKS.isdisjoint(headers):
        return GOOGLE + path.removeprefix("/v1/")
    return path


def meant_address(path: str) -> str:
    """The address of the gateway that a path leads to, for all that clients make of its base URL; else the path itself.

    `/chat/completions`, `//v1/v1/chat/completions/` and `/v1/models/chat/completions` are `/v1/chat/completions`.
    """
    # The router's patterns end where a last line does: whatever lies before the newline would be taken for the address.
    path = path.rstrip("\n")
    if path.startswith(_SESSION) and path != _SESSION:
        return path
    place, name = 0, ""
    while step := _STEP.match(path, place):
        place, name = step.end(), _SLASHES.sub("/", step[1])
    rest = path[place:].lstrip("/")
    if name and (not rest or name in _WITH_IDS):
        return f"/v1/{name}/{rest}" if rest else f"/v1/{name}"
    if (found := _BEFORE_A_MODEL.match(path)) and ("beta" in found[1] or "alpha" in found[1]):
        model = path[found.end() :].strip("/")
        return f"{GOOGLE}models/{model}" if model else f"{GOOGLE}models"
    bare = "/" + path.strip("/")
    return bare if bare in _PUBLIC else path


def address_hint(path: str) -> str:
    """A sentence for a client that asks at an address that isn't there; empty if the path tells nothing."""
    if end := _END.search(path):
        return f" Did you mean /v1/{_SLASHES.sub('/', end[1])}?"
    if path.startswith(ADMINISTRATION):
        return "" if path.startswith(f"{ADMINISTRATION}v1/") else " The admin API's addresses begin with /admin/v1/."
    return "" if path.startswith(("/v1/", GOOGLE)) else " The API's addresses begin with /v1/."


class TrustedProxies:
    """The proxies whose headers are believed.

    Args:
        addresses: Addresses and networks, separated by commas; `*` for everybody.
    """

    def __init__(self, addresses: str) -> None:
        given = [part.strip() for part in addresses.split(",")]
        self._everybody = "*" in given
        self._networks = [ipaddress.ip_network(part, strict=False) for part in given if _is_network(part)]

    def prefix(self, header: bytes, client: tuple[str, int] | None) -> str:
        """The address below which a proxy serves the gateway, as it says itself; empty if that isn't believed."""
        prefix = header.decode("latin-1").rstrip("/")
        return prefix if _PREFIX.fullmatch(prefix) and self._is_trusted(client) else ""

    def client(self, header: bytes, client: tuple[str, int] | None) -> tuple[str, int] | None:
        """Who has asked a proxy, as it says itself by the last of the addresses; the proxy if that isn't believed."""
        address = header.decode("latin-1").rpartition(",")[2].strip()
        return (address, 0) if self._is_trusted(client) and _is_network(address) and "/" not in address else client

    def _is_trusted(self, client: tuple[str, int] | None) -> bool:
        if self._everybody or client is None or not _is_network(client[0]):
            return self._everybody
        address = ipaddress.ip_address(client[0])
        return any(address in network for network in self._networks)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
