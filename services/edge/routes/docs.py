"""The OpenAPI document and a page to try it. They need no token and hold no data."""

from importlib.resources import files
from typing import Any

from litestar import Response, get

from services.edge.gate import PUBLIC, HttpRequest

FOLDER = files("services.edge.docs")
HEADERS = {
    # Nothing from elsewhere, nothing inline: a description that holds script is shown as text.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@get("/docs", opt={"scope": PUBLIC}, include_in_schema=False)
async def page() -> Response[bytes]:
    """Shows every operation, with a form to try it."""
    return _file("page.html", "text/html; charset=utf-8")


@get("/docs/page.js", opt={"scope": PUBLIC}, include_in_schema=False)
async def script() -> Response[bytes]:
    """What the page does."""
    return _file("page.js", "text/javascript; charset=utf-8")


@get("/docs/page.css", opt={"scope": PUBLIC}, include_in_schema=False)
async def style() -> Response[bytes]:
    """How the page looks."""
    return _file("page.css", "text/css; charset=utf-8")


@get("/docs/openapi.json", opt={"scope": PUBLIC}, include_in_schema=False)
async def openapi(request: HttpRequest) -> Response[bytes]:
    """Every operation, as OpenAPI 3.1."""
    return Response(request.app.state.openapi, media_type="application/json", headers=HEADERS)


def _file(name: str, media_type: str) -> Response[bytes]:
    return Response(FOLDER.joinpath(name).read_bytes(), media_type=media_type, headers=HEADERS)


HANDLERS: list[Any] = [page, script, style, openapi]
