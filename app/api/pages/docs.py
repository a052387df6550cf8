"""`/docs`: the API's description to read and to try, with everything that it needs from this server."""

import gzip
import hashlib
import importlib.util
from collections.abc import Callable
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from app.api.pages.browsers import page_headers

# Swagger UI's files come with this package, of which nothing else is used.
_PACKAGE = "fastapi_swagger"
_FOREVER = "public, max-age=31536000, immutable"
_HEADERS = page_headers(script_src="'self'", style_src="'self'", img_src="'self' data:", connect_src="'self'")


class _Asset:
    """A file that the page loads. It is read when it is first asked for.

    Args:
        find: Finds the file.
    """

    def __init__(self, media_type: str, find: Callable[[], Path]) -> None:
        self.media_type = media_type
        self._find = find

    @cached_property
    def version(self) -> str:
        """Another one for other contents, so that browsers may keep the file for ever."""
        return hashlib.sha256(self.content()).hexdigest()[:16]

    @cached_property
    def packed(self) -> bytes:
        """The contents, compressed with gzip."""
        return gzip.compress(self.content(), compresslevel=6, mtime=0)

    def content(self) -> bytes:
        """The contents."""
        return self._find().read_bytes()


def _of_swagger_ui(name: str) -> Path:
    # Found without being imported: it would bring more than its files.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The package {_PACKAGE} is not installed.")
    return Path(spec.submodule_search_locations[0], "resources", name)


def _own(name: str) -> Path:
    return Path(__file__).with_name("static") / name


_SOURCES: Final = {
    "swagger-ui.css": ("text/css", _of_swagger_ui),
    "swagger-ui-bundle.js": ("text/javascript", _of_swagger_ui),
    "docs.js": ("text/javascript", _own),
}
ASSET_PATHS: Final = frozenset(f"/docs/{name}" for name in _SOURCES)


def docs_router(title: str) -> APIRouter:
    """The page and its files. The functions are no coroutines: files are read, and packed, in a thread."""
    router = APIRouter(include_in_schema=False)
    assets = {name: _Asset(media_type, partial(find, name)) for name, (media_type, find) in _SOURCES.items()}

    @router.get("/docs")
    def show_docs(request: Request) -> HTMLResponse:
        prefix = request.scope.get("root_path", "")
        addresses = {name: f"{prefix}/docs/{name}?v={asset.version}" for name, asset in assets.items()}
        return HTMLResponse(_page(title, f"{prefix}/openapi.json", addresses), headers=_HEADERS)

    for name, asset in assets.items():
        router.add_api_route(f"/docs/{name}", _sender(asset), response_class=Response)
    return router


def _sender(asset: _Asset) -> Callable[[Request], Response]:
    def send_asset(request: Request) -> Response:
        headers = {
            "cache-control": _FOREVER if request.query_params.get("v") == asset.version else "no-cache",
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if "gzip" in request.headers.get("accept-encoding", "").lower():
            return Response(asset.packed, headers=headers | {"content-encoding": "gzip"}, media_type=asset.media_type)
        return Response(asset.content(), headers=headers, media_type=asset.media_type)

    return send_asset


def _page(title: str, description: str, assets: dict[str, str]) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{escape(assets["swagger-ui.css"])}">
<script defer src="{escape(assets["swagger-ui-bundle.js"])}"></script>
<script defer src="{escape(assets["docs.js"])}"></script>
</head>
<body>
<noscript>This page needs JavaScript. The description itself is at {escape(description)}.</noscript>
<div id="swagger-ui" data-description="{escape(description)}"></div>
</body>
</html>
"""
