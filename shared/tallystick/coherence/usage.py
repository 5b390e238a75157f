"""Counts accepted and rejected requests by token, and reports them in batches, off the request's path."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from tallystick.coherence.transport import Transport
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import REPORT_USE, RejectedRequest, ReportUse, TokenUsage
from tallystick.errors import AuthError
from tallystick.rpc import batches

log = logging.getLogger(__name__)

REPORT_S = 1.0
MAX_TOKENS = 10_000
MAX_REFUSALS = 1_000
MAX_REFUSALS_OF_ONE = 10
"""In one report: a token's log keeps its latest 100, so a flood of them would be written to be forgotten."""
LATER = {"unavailable", "overloaded"}
"""Failures after which the same report may be accepted; any other one concerns the report itself."""
MAX_REJECTED = 50
"""Rejections in one go after which a rejected report is dropped whole: enough to find a few bad ones among thousands,
and no flood of requests where the service rejects everything.
"""
_EMPTY_BYTES = len(msgspec.json.encode(ReportUse(uses=(), refusals=())))

_AS_TOLD = dict.fromkeys(("revoked", "replaced", "disabled", "expired", "not_yet_valid"), "invalid_token")
"""The reason that the client learns, by the exact reason."""
_ENDED = frozenset({"revoked", "replaced", "disabled"})
"""Why a token was ended before its time: its use is counted apart."""


class Usage:
    """Usage that is not reported yet. It is bounded: beyond the bound, usage is dropped and counted."""

    def __init__(self) -> None:
        self._uses: dict[str, _Uses] = {}
        self._refusals: list[RejectedRequest] = []
        self._noted: Counter[str] = Counter()
        """Rejected requests by token since the last report."""
        self.dropped = 0
        """Uses and rejected requests that are not reported, since they were last counted."""
        self._waiting = False
        """Whether the last report was not accepted for now."""
        self.results: Counter[str] = Counter()
        """How many requests were judged, by result."""
        self.ended: Counter[str] = Counter()
        """How many requests presented a token that was ended before its time, by reason."""

    def used(self, token: str, address: str | None) -> None:
        self.results["ok"] += 1
        uses = self._uses.get(token)
        if uses is None:
            if len(self._uses) >= MAX_TOKENS:
                self.dropped += 1
                return
            uses = self._uses[token] = _Uses()
        uses.count += 1
        uses.time = time.time()
        uses.address = address

    def refused(self, token: str, reason: str) -> bool:
        """Counts a rejected request. True if there is room to `note` it."""
        self.results[_AS_TOLD.get(reason, reason)] += 1
        if reason in _ENDED:
            self.ended[reason] += 1
        # Only where there is room is anything kept by token.
        if len(self._refusals) < MAX_REFUSALS and self._noted[token] < MAX_REFUSALS_OF_ONE:
            self._noted[token] += 1
            return True
        self.dropped += 1
        return False

    def rejected(self, error: AuthError, address: str | None, route: str, request_id: str | None) -> None:
        """Counts a rejected request; one with a token that exists also has a line in that token's log.

        Args:
            error: why it is rejected.
            address: the client's address.
            route: the template of the route that it was sent to.
            request_id: its id.
        """
        if error.token_id is None:
            self.results[error.reason] += 1
        elif self.refused(error.token_id, error.log_reason):
            self.note(error.token_id, error.log_reason, address, route, request_id)

    def note(self, token: str, reason: str, address: str | None, route: str, request_id: str | None) -> None:
        """Has a rejected request reported for the token's log."""
        self._refusals.append(
            RejectedRequest(
                id=token,
                time=datetime.now(UTC),
                reason=reason,
                address=address,
                route=route,
                request_id=request_id,
            )
        )

    def take_results(self) -> dict[str, int]:
        """Since the last time."""
        results, self.results = self.results, Counter()
        return dict(results)

    def take_ended(self) -> dict[str, int]:
        """Since the last time."""
        ended, self.ended = self.ended, Counter()
        return dict(ended)

    async def report(self, transport: Transport) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            await self.flush(transport)

    def take(self) -> deque[list[TokenUsage | RejectedRequest]]:
        """Takes the unreported usage, in reports that are each within the limit of a request."""
        items: list[TokenUsage | RejectedRequest] = [
            uses.reported(token) for token, uses in self._uses.items()
        ]
        items += self._refusals
        self._uses, self._refusals = {}, []
        self._noted.clear()
        return deque(batches.cut(items, REPORT_USE.max_bytes - _EMPTY_BYTES))

    async def flush(self, transport: Transport) -> None:
        """Reports all current usage, in as many requests as it takes. It stops while the service is unavailable; the rest
        is retried with the next flush. A report that the service rejects is halved until the rejected item is alone;
        that item is dropped and counted.
        """
        reports = self.take()
        rejected = dropped = 0
        try:
            while reports:
                failure = await _send(transport, reports[0])
                if failure is not None and failure.code in LATER:
                    self._wait(failure)
                    break
                report = reports.popleft()
                if failure is None:
                    self._waiting = False
                    continue
                rejected += 1
                if len(report) > 1 and rejected < MAX_REJECTED:
                    half = len(report) // 2
                    reports.extendleft((report[half:], report[:half]))
                else:
                    dropped += sum(map(_number, report))
        finally:
            if dropped:
                log.warning("dropped %d usage reports that the tokens service rejected", dropped)
            self.dropped += dropped
            # Also where this is cancelled: the last report goes out when the edge stops.
            self._keep(item for report in reports for item in report)

    def _wait(self, failure: Failure) -> None:
        if not self._waiting:
            log.warning("cannot report usage, will retry: %s", failure.code)
        self._waiting = True

    def _keep(self, items: Iterable[TokenUsage | RejectedRequest]) -> None:
        refusals: list[RejectedRequest] = []
        for item in items:
            if isinstance(item, RejectedRequest):
                refusals.append(item)
            elif existing := self._uses.get(item.id):
                existing.count += item.count
            elif len(self._uses) < MAX_TOKENS:
                self._uses[item.id] = _Uses(item.count, item.time.timestamp(), item.ip)
            else:
                self.dropped += item.count
        refusals += self._refusals
        self.dropped += max(0, len(refusals) - MAX_REFUSALS)
        self._refusals = refusals[:MAX_REFUSALS]


class _Uses:
    """How often a token was used, and when (seconds since the epoch) and from where last."""

    __slots__ = ("address", "count", "time")

    def __init__(self, count: int = 0, time: float = 0, address: str | None = None) -> None:
        self.count = count
        self.time = time
        self.address = address

    def reported(self, token: str) -> TokenUsage:
        return TokenUsage(
            id=token, count=self.count, time=datetime.fromtimestamp(self.time, UTC), ip=self.address
        )


async def _send(transport: Transport, report: list[TokenUsage | RejectedRequest]) -> Failure | None:
    message = as_message(report)
    if not batches.fits(message, REPORT_USE.max_bytes):
        return Failure(code="bad_request", message="a single item over the limit")
    reply = await transport.call(REPORT_USE, message)
    return reply if isinstance(reply, Failure) else None


def as_message(report: list[TokenUsage | RejectedRequest]) -> ReportUse:
    return ReportUse(
        uses=tuple(item for item in report if isinstance(item, TokenUsage)),
        refusals=tuple(item for item in report if isinstance(item, RejectedRequest)),
    )


def _number(item: TokenUsage | RejectedRequest) -> int:
    return item.count if isinstance(item, TokenUsage) else 1
