"""What was let in and what was refused, by token: gathered here and reported in batches, off the request's path."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from nats.aio.client import Client

from shared import rpc
from shared.contracts import REPORT_USE, Failure, Refusal, ReportUse, Use

log = logging.getLogger(__name__)

REPORT_S = 1.0
MAX_TOKENS = 10_000
MAX_REFUSALS = 1_000
MAX_REFUSALS_OF_ONE = 10
"""In one report: a token's log keeps its latest 100, so a flood of them would be written to be forgotten."""
BATCH = 200  # keeps a report under what a request may hold


_AS_TOLD = dict.fromkeys(("revoked", "disabled", "expired", "not_yet_valid"), "invalid_token")
"""What the client is told of why its token is not honoured."""

_Refused = tuple[str, float, str, str | None, str, str | None]
"""A `Refusal` before it is reported, with its time in seconds since the epoch."""


class Usage:
    """Bounded: beyond it what happens goes unreported, and is counted."""

    def __init__(self) -> None:
        self._uses: dict[str, _Uses] = {}
        self._refusals: list[_Refused] = []
        self._noted: Counter[str] = Counter()
        """Refusals by token since the last report."""
        self.dropped = 0
        self.results: Counter[str] = Counter()
        """How many requests were judged, by result."""

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
        """Counts a refusal, and answers whether there is room to `note` it."""
        self.results[_AS_TOLD.get(reason, reason)] += 1
        noted = self._noted[token] = self._noted[token] + 1
        if noted <= MAX_REFUSALS_OF_ONE and len(self._refusals) < MAX_REFUSALS:
            return True
        self.dropped += 1
        return False

    def note(self, token: str, reason: str, address: str | None, route: str, request_id: str | None) -> None:
        """Has a refusal reported for the token's log."""
        self._refusals.append((token, time.time(), reason, address, route, request_id))

    def take_results(self) -> dict[str, int]:
        """Since the last time."""
        results, self.results = self.results, Counter()
        return dict(results)

    async def report(self, client: Client) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            await self.flush(client)

    async def flush(self, client: Client) -> None:
        """Reports what there is by now, in as many requests as that takes; what comes meanwhile is left to the next
        time. Stops where nobody listens, to go on later.
        """
        uses = [each.reported(token) for token, each in self._uses.items()]
        refusals = self._refusals
        self._uses, self._refusals = {}, []
        self._noted.clear()
        while uses or refusals:
            report = ReportUse(uses=tuple(uses[:BATCH]), refusals=tuple(map(_refusal, refusals[:BATCH])))
            if isinstance(await rpc.call(client, REPORT_USE, report), Failure):
                self._keep(uses, refusals)
                return
            del uses[:BATCH], refusals[:BATCH]

    def _keep(self, uses: Sequence[Use], refusals: list[_Refused]) -> None:
        for use in uses:
            newer = self._uses.get(use.id)
            if newer:
                newer.count += use.count
            elif len(self._uses) < MAX_TOKENS:
                self._uses[use.id] = _Uses(use.count, use.time.timestamp(), use.ip)
            else:
                self.dropped += use.count
        kept = [*refusals, *self._refusals]
        self.dropped += max(0, len(kept) - MAX_REFUSALS)
        self._refusals = kept[:MAX_REFUSALS]


class _Uses:
    """How often a token was used, and when (seconds since the epoch) and from where last."""

    __slots__ = ("address", "count", "time")

    def __init__(self, count: int = 0, time: float = 0, address: str | None = None) -> None:
        self.count = count
        self.time = time
        self.address = address

    def reported(self, token: str) -> Use:
        return Use(id=token, count=self.count, time=datetime.fromtimestamp(self.time, UTC), ip=self.address)


def _refusal(noted: _Refused) -> Refusal:
    token, when, reason, address, route, request_id = noted
    return Refusal(
        id=token,
        time=datetime.fromtimestamp(when, UTC),
        reason=reason,
        address=address,
        route=route,
        request_id=request_id,
    )
