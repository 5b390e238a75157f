"""What the pages load: all of it from here."""

from functools import lru_cache
from importlib.resources import files

from litestar import Response
from litestar.params import FromPath

from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.dashboard.pages import HEADERS, Handlers, shows_all
from tallystick_server.edge.http import static_files
from tallystick_server.edge.http.errors import ProblemError
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
    """What this route serves, by file name."""
    return {
        name: static_file(_FOLDER.joinpath(name).read_bytes(), media_type, HEADERS)
        for name, media_type in MEDIA_TYPES.items()
    }


@shows_all("/admin/assets/{name:str}")
async def asset(request: HttpRequest, name: FromPath[str]) -> Response[bytes]:
    """A style, a script or a picture."""
    file: StaticFile | None = request.app.state.assets.get(name)
    if file is None:
        raise ProblemError("not_found")
    return static_files.answer(request, file)


HANDLERS: Handlers = [asset]
