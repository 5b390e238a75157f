"""Counts the requests this edge answered, by method, status and route template; reported in batches."""

import msgspec

from shared import batches
from shared.contracts import ApiCall, ApiCalls
from shared.events import MAX_DATA_BYTES, Producer

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER = "other"
"""Any other method, which a client may have made up; and any route beyond MAX_KINDS."""
UNROUTED = "unrouted"
"""The route of a request that was answered before one was looked for."""
MAX_KINDS = 2000
"""More than the routes there are have methods and statuses. Beyond it the route is not told apart, and nothing is lost."""
_EMPTY_BYTES = len(msgspec.json.encode(ApiCalls(calls=())))


class Calls:
    """Keyed by closed sets only: the methods above, the statuses the edge answers with and its own routes."""

    def __init__(self) -> None:
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
        counts, self._counts = self._counts, {}
        calls = [
            ApiCall(method=method, status_code=status, route=route, count=count)
            for (method, status, route), count in counts.items()
        ]
        for batch in batches.cut(calls, MAX_DATA_BYTES - _EMPTY_BYTES):
            producer.send("api.calls", ApiCalls(calls=tuple(batch)))
