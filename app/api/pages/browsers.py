"""What browsers ask for, and what they are told with every page. Pure."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

_HOST = re.compile(r"(?:[A-Za-z0-9]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_PAGE = frozenset({"text/html", "application/xhtml+xml"})


def wants_page(accept: str) -> bool:
    """Whether a client would rather have a page than JSON. One that takes anything, such as curl, gets JSON."""
    weights = dict(_weighted(accept))
    page = max((weights.get(kind, 0.0) for kind in _PAGE), default=0.0)
    return page > 0 and page >= weights.get("application/json", 0.0)


def preferred_language(accept_language: str, languages: Sequence[str]) -> str:
    """The language that a browser would rather have; the first one if it asks for none of them.

    Args:
        languages: By their main tags, such as `zh`.
    """
    asked = sorted(_weighted(accept_language), key=lambda each: each[1], reverse=True)
    mains = (tag.partition("-")[0] for tag, weight in asked if weight > 0)
    return next((main for main in mains if main in languages), languages[0])


def address_as_seen(scheme: str, headers: Mapping[bytes, bytes], prefix: str, server: tuple[str, int | None]) -> str:
    """The address of the gateway as a browser sees it, without a slash at its end.

    Args:
        scheme: Of the connection; a proxy's `X-Forwarded-Proto` wins. Nobody but the client itself could lie there, and
            nobody else is shown the page.
        headers: Of the request, by their names in lower case.
        prefix: The path below which a proxy serves the gateway.
        server: Host and port of the socket, for requests without a sound `Host`.
    """
    forwarded = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
    shown = forwarded.decode() if forwarded in (b"http", b"https") else scheme
    host = headers.get(b"host", b"").decode("latin-1")
    if not _HOST.fullmatch(host):
        name, port = server
        bracketed = f"[{name}]" if ":" in name else name
        host = bracketed if port is None else f"{bracketed}:{port}"
    return f"{shown}://{host}{prefix}"


def page_headers(**sources: str) -> dict[str, str]:
    """The headers of a page that may load what `sources` name, by directive (`style_src`), and nothing else."""
    policy = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    policy |= {name.replace("_", "-"): source for name, source in sources.items()}
    return {
        "content-security-policy": "; ".join(f"{name} {source}" for name, source in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def hash_source(text: str) -> str:
    """How a Content-Security-Policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _weighted(header: str) -> Iterator[tuple[str, float]]:
    """The values of an `Accept` header in lower case, with their weights."""
    for part in header.lower().split(","):
        value, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        if value:
            yield value, float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
