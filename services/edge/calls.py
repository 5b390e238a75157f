"""Counts the requests this edge answered, by method, status and route template; reported in batches."""

from shared.contracts import ApiCall, ApiCalls
from shared.events import Producer

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UNROUTED = "unrouted"
"""The route of a request that was answered before one was looked for."""
MAX_KINDS = 2000
BATCH = 250  # keeps a report under what an event may hold


class Calls:
    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, str], int] = {}

    def answered(self, method: str, status: int, route: str) -> None:
        kind = (method, status, route)
        known = self._counts.get(kind)
        if known is None and method not in METHODS:  # any word may be one, so that they would use up the room
            kind = ("other", status, route)
            known = self._counts.get(kind)
        if known is not None:
            self._counts[kind] = known + 1
        elif len(self._counts) < MAX_KINDS:
            self._counts[kind] = 1

    def report(self, producer: Producer) -> None:
        counts, self._counts = list(self._counts.items()), {}
        calls = [
            ApiCall(method=method, status_code=status, route=route, count=n)
            for (method, status, route), n in counts
        ]
        for first in range(0, len(calls), BATCH):
            producer.send("api.calls", ApiCalls(calls=tuple(calls[first : first + BATCH])))
