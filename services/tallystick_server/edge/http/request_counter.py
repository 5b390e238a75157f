"""Counts the requests of this edge by method, status and route template, and reports them in batches.

API requests are reported in EmailEngine's counters. All others (health checks, scrapes, the API reference, the dashboard,
unknown paths) are reported separately, so that they do not inflate the number of API calls.
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
"""The label of any other method, since clients may invent methods; and of the route beyond MAX_KINDS."""
UNROUTED = "unrouted"
"""The route of a request to an unknown path."""
MAX_KINDS = 2000
"""Maximum number of distinct counts, more than all routes have. Beyond it, requests are counted without their route."""
HANDLERS = {
    "health": "health",
    "metrics": "metrics",
    "docs": "docs",
    "admin": "dashboard",
    UNROUTED: UNROUTED,
    "": UNROUTED,
}
"""The handlers of requests other than API requests, by the first segment of the route."""
_EMPTY_BYTES = len(msgspec.json.encode(ApiCalls(calls=())))
_PARAMETER = object()
_TEMPLATE = object()
_MAX_SEGMENTS = 16
"""More than any route has, which limits the time that a long path takes."""
_MAX_PATH = 1024
_CACHED = 1024


class Routes:
    """Finds the route template of a path as Litestar does, for responses that are sent without Litestar."""

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
        """The template of the path's route, for any method; `UNROUTED` if there is no route."""
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
    """Counts requests. Its keys are from closed sets only: the methods above, the edge's statuses and its routes."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        self._recorder = recorder
        self._counts: dict[tuple[str, int, str], int] = {}

    def count_response(self, method: str, status: int, route: str) -> None:
        counts = self._counts
        kind = (method, status, route)
        if kind not in counts:  # the first of its kind, or an unknown method
            kind = (method if method in METHODS else OTHER, status, route)
            if kind not in counts and len(counts) >= MAX_KINDS:
                kind = (kind[0], status, OTHER)
        counts[kind] = counts.get(kind, 0) + 1

    def report(self, producer: Producer) -> None:
        """Reports the requests since the last report. Methods are in lower case, as in EmailEngine."""
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
