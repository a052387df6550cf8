"""Renders pages: templates, texts in the reader's language, files with their versions in their addresses."""

import hashlib
import shlex
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.api.console.faults import translated
from app.api.console.visitors import home_of, page_path, recordings_of
from app.api.logins import visitor_of
from app.api.pages.addresses import gateway_address
from app.api.pages.browsers import preferred_language

LANGUAGES: Final = ("en", "zh")
_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LANGUAGE_COOKIE, _THEME_COOKIE = "kimi_language", "kimi_theme"
_THEMES = ("light", "dark")


class Rendering:
    """Renders the console's pages."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "when": _when,
            "short": _short,
            "duration": _duration,
            "money": _money,
            "bytes": _bytes,
            "quoted": _quoted,
        }
        self._environment.globals["asset"] = asset_address

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page.

        Args:
            template: The name of its file, without the ending.
            values: What it shows.
        """
        language = language_of(request)
        texts = texts_of(language)
        address = gateway_address(request)
        html = self._environment.get_template(f"{template}.html").render(
            t=lambda key, **names: texts[key].format(**names) if names else texts[key],
            # What the gateway, or an upstream, calls something by a code: codes are many, and there may be new ones.
            word=lambda begin, code: texts.get(begin + code, code),
            told_fault=lambda message: translated(message, language),
            dictionary=lambda *begins: {key: text for key, text in texts.items() if key.startswith(begins)},
            language=language,
            theme=theme_of(request),
            visitor=visitor_of(request),
            recordings=recordings_of(request),
            base=home_of(request),
            address=address,
            api=f"{address}/v1",
            path=page_path(request),
            here=_address_of(request),
            is_saved=request.method == "GET" and "saved" in request.query_params,
            now=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(html, status, headers=dict(_HEADERS))


def _address_of(request: Request) -> str:
    """Where a page is, to come back to; what a form has answered can't be asked for again."""
    home = home_of(request)
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{home}{page_path(request)}{query}" if request.method in ("GET", "HEAD") else f"{home}/"


def language_of(request: Request) -> str:
    """The reader's language: as it was chosen, or as the browser asks."""
    chosen = request.cookies.get(_LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else preferred_language(request.headers.get("accept-language", ""), LANGUAGES)


def theme_of(request: Request) -> str:
    """`light` or `dark` if it was chosen; empty for the system's."""
    chosen = request.cookies.get(_THEME_COOKIE, "")
    return chosen if chosen in _THEMES else ""


@cache
def texts_of(language: str) -> Mapping[str, str]:
    """The texts of a language, by their keys."""
    return tomllib.loads((_HERE / "texts" / f"{language}.toml").read_text("utf-8"))


@cache
def setting_texts_of(language: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The titles of settings' groups by their English ones, and what settings mean by their names.

    Both are empty for English, in which settings say so themselves.
    """
    file = _HERE / "setting_texts" / f"{language}.toml"
    found = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    return found.get("groups", {}), found.get("meanings", {})


@cache
def _assets() -> tuple[Mapping[str, bytes], str]:
    """The files that pages load, and their version.

    It is one for all of them: a script that imports another one gets the very address that pages have for it.
    """
    files = {path.name: path.read_bytes() for path in sorted((_HERE / "static").iterdir()) if path.suffix in _TYPES}
    told = [f"{name} {hashlib.sha256(contents).hexdigest()}" for name, contents in files.items()]
    return files, hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def asset_address(base: str, name: str) -> str:
    """The address of a file that pages load: another one for other contents."""
    files, version = _assets()
    if name not in files:
        raise LookupError(f"there is no file {name}")
    return f"{base}/static/{version}/{name}"


def serve_asset(request: Request) -> Response:
    """A file that pages load."""
    name = request.path_params["name"]
    files, version = _assets()
    if name not in files:
        return Response(status_code=404)
    # An older page may still ask for an older version: it gets this one, but not for ever.
    lasting = _FOREVER if request.path_params["version"] == version else "no-store"
    headers = {"cache-control": lasting, "x-content-type-options": "nosniff"}
    return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=headers)


def _quoted(text: str) -> str:
    """A word of a command line: `$10/month` would be a variable in double quotes."""
    return shlex.quote(str(text))  # str: markup would escape what is added to it


def _when(at: datetime | int | None) -> str:
    """A time for a `<time>` element; scripts show it as the reader's country does."""
    if at is None:
        return ""
    time = datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else at
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(number: float | None) -> str:
    """A number as people say it: 950, 12.3k, 4.5M."""
    if number is None:
        return "–"
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if abs(number) >= size * 10 or (abs(number) >= size > 1_000):
            return f"{number / size:.1f}{letter}"
    return f"{number:,.0f}"


def _duration(milliseconds: float | None) -> str:
    """A duration: 45 ms, 2.3 s, 3 min."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _money(dollars: float | None) -> str:
    return "–" if not dollars else f"${dollars:,.4f}" if dollars < 1 else f"${dollars:,.2f}"


def _bytes(size: int) -> str:
    """A size: 950 KB, 4.5 MB."""
    kilobytes = size / 1024
    return f"{kilobytes / 1024:,.1f} MB" if kilobytes >= 1000 else f"{kilobytes:.0f} KB"
