"""Counts the requests this edge answered, by method, status and route template; reported in batches.

Requests to the API are reported as the original counts them. All others (health checks, scrapes, the API reference, the
dashboard, what led to no route) are reported apart, so that nobody's API calls include them.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from litestar.routes import BaseRoute
from litestar.utils import normalize_path

from tallystick.contracts.events import ApiCall, ApiCalls
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.producer import MAX_DATA_BYTES, Producer
from tallystick.rpc import batches

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER = "other"
"""Any other method, which a client may have made up; and any route beyond MAX_KINDS."""
UNROUTED = "unrouted"
"""The route of a request that was answered before one was looked for."""
MAX_KINDS = 2000
"""More than the routes there are have methods and statuses. Beyond it the route is not told apart, and nothing is lost."""
HANDLERS = {
    "health": "health",
    "metrics": "metrics",
    "docs": "docs",
    "admin": "dashboard",
    UNROUTED: UNROUTED,
    "": UNROUTED,
}
"""Who answers requests that are not for the API, by the first segment of their route."""
_EMPTY_BYTES = len(msgspec.json.encode(ApiCalls(calls=())))
_PARAMETER = object()
_TEMPLATE = object()
_MAX_SEGMENTS = 16
"""More than any route has: a long path takes no longer than a wrong one."""
_MAX_PATH = 1024
_CACHED = 1024


class Routes:
    """Finds the template of the route that a path leads to as Litestar does, for requests that are answered before."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._plain: set[str] = set()
        self._root: dict[Any, Any] = {}
        for route in routes:
            if not route.path_parameters:
                self._plain.add(route.path_format)
                continue
            node = self._root
            for component in route.path_components:
                node = node.setdefault(component if isinstance(component, str) else _PARAMETER, {})
                if not isinstance(component, str) and component.type is Path:
                    node[Path] = True
            node[_TEMPLATE] = route.path_format
        self.template = lru_cache(_CACHED)(self._template)

    def _template(self, path: str) -> str:
        """The route's template, whichever methods it has; `UNROUTED` where no route is."""
        if path in self._plain:
            return path
        if len(path) > _MAX_PATH:
            return UNROUTED
        if path.endswith("/") or "//" in path:
            return self.template(normalize_path(path))
        node: Any = self._root
        for segment in path.split("/", _MAX_SEGMENTS)[1:]:
            node = node.get(segment) or node.get(_PARAMETER)
            if node is None:
                return UNROUTED
            if Path in node:
                break
        template: str = node.get(_TEMPLATE, UNROUTED)
        return template


class RequestCounter:
    """Keyed by closed sets only: the methods above, the statuses the edge answers with and its own routes."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        self._recorder = recorder
        self._counts: dict[tuple[str, int, str], int] = {}

    def answered(self, method: str, status: int, route: str) -> None:
        counts = self._counts
        kind = (method, status, route)
        if kind not in counts:  # the first of its kind, or of a method that is counted as another
            kind = (method if method in METHODS else OTHER, status, route)
            if kind not in counts and len(counts) >= MAX_KINDS:
                kind = (kind[0], status, OTHER)
        counts[kind] = counts.get(kind, 0) + 1

    def report(self, producer: Producer) -> None:
        """Reports what was answered since the last time. Methods are in lower case, as the original has them."""
        counts, self._counts = self._counts, {}
        calls = []
        for (method, status, route), count in counts.items():
            handler = HANDLERS.get(route.removeprefix("/").partition("/")[0])
            if handler is None:
                calls.append(ApiCall(method=method.lower(), status_code=status, route=route, count=count))
            else:
                labels = {"handler": handler, "method": method.lower(), "code": str(status)}
                self._recorder.count(catalogue.HTTP_REQUESTS, count, **labels)
        for batch in batches.cut(calls, MAX_DATA_BYTES - _EMPTY_BYTES):
            producer.send("api.calls", ApiCalls(calls=tuple(batch)))
