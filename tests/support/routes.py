"""The routes of an edge, and what may stand in the place of a name."""

import re
from typing import Any

from litestar.routes import HTTPRoute

from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings

_LITESTAR: Any = create_app(Settings(nats_url="nats://127.0.0.1:1"))._app  # type: ignore[attr-defined]
ROUTES = [
    (
        re.sub(r"{\w+}", "alice", route.path_format),
        method,
        *pair,
    )
    for route in _LITESTAR.routes
    if isinstance(route, HTTPRoute)
    for method, pair in sorted(route.route_handler_map.items())
]
"""Path, method, handler, and what the framework itself says of the handler's parameters."""


def encoded(name: str) -> str:
    """The same name, its last character percent-encoded."""
    return f"{name[:-1]}%{ord(name[-1]):02x}"
