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
MAX_REJECTED_REQUESTS = 1_000
MAX_REJECTED_REQUESTS_PER_TOKEN = 10
"""Maximum number in one report. A token's log keeps the latest 100, so more would be stored only to be deleted."""
LATER = {"unavailable", "overloaded"}
"""Failures after which the same report may be accepted. Any other one concerns the report itself."""
MAX_REJECTED_REPORTS = 50
"""Rejections in one flush after which a rejected report is dropped as a whole: enough to find a few invalid items among
thousands, without a flood of requests if the service rejects everything.
"""
_EMPTY_BYTES = len(msgspec.json.encode(ReportUse(uses=(), refusals=())))

_PUBLIC_REASON = dict.fromkeys(
    ("revoked", "replaced", "disabled", "expired", "not_yet_valid"), "invalid_token"
)
"""The reason in the response, by the exact reason."""
_WITHDRAWN = frozenset({"revoked", "replaced", "disabled"})
"""Reasons of tokens that were withdrawn before they expired. Their use is counted separately."""


class Usage:
    """Accepted and rejected requests since the last report, in bounded memory: beyond it they are only counted."""

    def __init__(self) -> None:
        self._uses: dict[str, _Uses] = {}
        self._rejected_requests: list[RejectedRequest] = []
        self._rejected_by_token: Counter[str] = Counter()
        """Number of rejected requests by token since the last report."""
        self.dropped = 0
        """Accepted and rejected requests that were not reported."""
        self._is_delayed = False
        """Whether the service could not take the last report."""
        self.results: Counter[str] = Counter()
        """Number of authorization decisions, by result."""
        self.ended: Counter[str] = Counter()
        """Number of requests with a withdrawn token, by reason."""

    def record_accepted(self, token: str, address: str | None) -> None:
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

    def count_rejection(self, token: str, reason: str) -> bool:
        """Counts a rejected request. Returns True if there is room to report it for the token's log."""
        self.results[_PUBLIC_REASON.get(reason, reason)] += 1
        if reason in _WITHDRAWN:
            self.ended[reason] += 1
        # Nothing is stored by token unless there is room, so that memory stays bounded.
        if (
            len(self._rejected_requests) < MAX_REJECTED_REQUESTS
            and self._rejected_by_token[token] < MAX_REJECTED_REQUESTS_PER_TOKEN
        ):
            self._rejected_by_token[token] += 1
            return True
        self.dropped += 1
        return False

    def record_rejection(
        self, error: AuthError, address: str | None, route: str, request_id: str | None
    ) -> None:
        """Counts a rejected request. If its token exists, it is also reported for the token's log.

        Args:
            error: why the request is rejected.
            address: the client's address.
            route: the template of the request's route.
            request_id: the request's id.
        """
        if error.token_id is None:
            self.results[error.reason] += 1
        elif self.count_rejection(error.token_id, error.log_reason):
            self.report_rejection(error.token_id, error.log_reason, address, route, request_id)

    def report_rejection(
        self, token: str, reason: str, address: str | None, route: str, request_id: str | None
    ) -> None:
        """Reports a rejected request for the token's log."""
        self._rejected_requests.append(
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
        """Takes everything that is not reported yet, in batches that each fit one request."""
        items: list[TokenUsage | RejectedRequest] = [
            uses.as_usage(token) for token, uses in self._uses.items()
        ]
        items += self._rejected_requests
        self._uses, self._rejected_requests = {}, []
        self._rejected_by_token.clear()
        return deque(batches.cut(items, REPORT_USE.max_bytes - _EMPTY_BYTES))

    async def flush(self, transport: Transport) -> None:
        """Reports everything recorded so far, in as many requests as necessary. Stops at a report that the service cannot
        take now, which is sent again later. A report that the service rejects is halved until the invalid item is alone;
        this one is dropped and counted.
        """
        reports = self.take()
        rejections = dropped = 0
        try:
            while reports:
                failure = await _send(transport, reports[0])
                if failure is not None and failure.code in LATER:
                    self._log_delay(failure)
                    break
                report = reports.popleft()
                if failure is None:
                    self._is_delayed = False
                    continue
                rejections += 1
                if len(report) > 1 and rejections < MAX_REJECTED_REPORTS:
                    half = len(report) // 2
                    reports.extendleft((report[half:], report[:half]))
                else:
                    dropped += sum(map(_request_count, report))
        finally:
            if dropped:
                log.warning("dropped the usage of %d requests, which the tokens service rejects", dropped)
            self.dropped += dropped
            # Also if this was cancelled: the last report is sent when the edge stops.
            self._restore(item for report in reports for item in report)

    def _log_delay(self, failure: Failure) -> None:
        if not self._is_delayed:
            log.warning("cannot report usage now: %s", failure.code)
        self._is_delayed = True

    def _restore(self, reported: Iterable[TokenUsage | RejectedRequest]) -> None:
        rejected: list[RejectedRequest] = []
        for item in reported:
            if isinstance(item, RejectedRequest):
                rejected.append(item)
            elif newer := self._uses.get(item.id):
                newer.count += item.count
            elif len(self._uses) < MAX_TOKENS:
                self._uses[item.id] = _Uses(item.count, item.time.timestamp(), item.ip)
            else:
                self.dropped += item.count
        rejected += self._rejected_requests
        self.dropped += max(0, len(rejected) - MAX_REJECTED_REQUESTS)
        self._rejected_requests = rejected[:MAX_REJECTED_REQUESTS]


class _Uses:
    """How often a token was used, and when (seconds since the epoch) and from which address it was last used."""

    __slots__ = ("address", "count", "time")

    def __init__(self, count: int = 0, time: float = 0, address: str | None = None) -> None:
        self.count = count
        self.time = time
        self.address = address

    def as_usage(self, token: str) -> TokenUsage:
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


def _request_count(item: TokenUsage | RejectedRequest) -> int:
    return item.count if isinstance(item, TokenUsage) else 1
