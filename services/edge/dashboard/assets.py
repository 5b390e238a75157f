"""What the pages load: all of it from here."""

from hashlib import sha256
from importlib.resources import files

from litestar import Response
from litestar.params import FromPath

from services.edge.dashboard.pages import HEADERS, Handlers, shows_all
from services.edge.errors import Refused
from services.edge.gate import HttpRequest

MEDIA_TYPES = {
    "style.css": "text/css; charset=utf-8",
    "script.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOLDER = files("services.edge.dashboard") / "assets"


@shows_all("/admin/assets/{name:str}")
async def asset(request: HttpRequest, name: FromPath[str]) -> Response[bytes]:
    """A style, a script or a picture. The browser asks each time whether it has changed."""
    if name not in MEDIA_TYPES:
        raise Refused("not_found")
    content = _FOLDER.joinpath(name).read_bytes()
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = {**HEADERS, "cache-control": "no-cache", "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers, media_type=MEDIA_TYPES[name])
    return Response(content, headers=headers, media_type=MEDIA_TYPES[name])


HANDLERS: Handlers = [asset]
