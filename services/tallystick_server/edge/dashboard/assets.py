"""Serves the style sheet, the scripts and the icon of the pages."""

from functools import lru_cache
from importlib.resources import files

from litestar import Response

from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.dashboard.pages import HEADERS, Handlers, shows_all
from tallystick_server.edge.http import static_files
from tallystick_server.edge.http.static_files import StaticFile, static_file

# Litestar adds the charset to the media types of text.
MEDIA_TYPES = {
    "style.css": "text/css",
    "script.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_FOLDER = files("tallystick_server.edge.dashboard") / "assets"


@lru_cache(1)
def load_assets() -> dict[str, StaticFile]:
    """The files that this route serves, by name."""
    return {
        name: static_file(_FOLDER.joinpath(name).read_bytes(), media_type, HEADERS)
        for name, media_type in MEDIA_TYPES.items()
    }


# One path for each file: any other path does not exist, and requires a token.
@shows_all(*(f"/admin/assets/{name}" for name in MEDIA_TYPES))
async def asset(request: HttpRequest) -> Response[bytes]:
    """A style, a script or a picture."""
    name = request.scope["path_template"].rpartition("/")[2]
    return static_files.respond(request, request.app.state.assets[name])


HANDLERS: Handlers = [asset]
