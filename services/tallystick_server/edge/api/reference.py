"""Serves the OpenAPI document and the API reference. They need no token and contain no data."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

from litestar import Response, get

from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authorization.requirements import PUBLIC
from tallystick_server.edge.http import static_files
from tallystick_server.edge.http.static_files import StaticFile, static_file

FOLDER = files("tallystick_server.edge.api") / "assets"
HEADERS = {
    # Nothing from elsewhere, nothing inline: a description that holds script is shown as text.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Litestar adds the charset to the media types of text.
MEDIA_TYPES = {"page.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}


@lru_cache(1)
def load_docs(openapi: bytes) -> dict[str, StaticFile]:
    """The files that these routes serve, by name."""
    pages = {
        name: static_file(FOLDER.joinpath(name).read_bytes(), media_type, HEADERS)
        for name, media_type in MEDIA_TYPES.items()
    }
    return {**pages, "openapi.json": static_file(openapi, "application/json", HEADERS)}


@get("/docs", requires=PUBLIC, include_in_schema=False)
async def page(request: HttpRequest) -> Response[bytes]:
    """The API reference, with a form to try each operation."""
    return _respond(request, "page.html")


@get("/docs/page.js", requires=PUBLIC, include_in_schema=False)
async def script(request: HttpRequest) -> Response[bytes]:
    """The script of the page."""
    return _respond(request, "page.js")


@get("/docs/page.css", requires=PUBLIC, include_in_schema=False)
async def style(request: HttpRequest) -> Response[bytes]:
    """The style sheet of the page."""
    return _respond(request, "page.css")


@get("/docs/openapi.json", requires=PUBLIC, include_in_schema=False)
async def openapi(request: HttpRequest) -> Response[bytes]:
    """The OpenAPI 3.1 document."""
    return _respond(request, "openapi.json")


def _respond(request: HttpRequest, name: str) -> Response[bytes]:
    return static_files.respond(request, request.app.state.docs[name])


HANDLERS: list[Any] = [page, script, style, openapi]
