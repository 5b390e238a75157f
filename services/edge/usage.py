"""What was let in and what was refused, by token: gathered here and reported in batches, off the request's path."""

import asyncio
import logging
from datetime import UTC, datetime

import msgspec
from nats.aio.client import Client

from shared import rpc
from shared.contracts import REPORT_USE, Failure, Refusal, ReportUse, Use

log = logging.getLogger(__name__)

REPORT_S = 1.0
MAX_TOKENS = 10_000
MAX_REFUSALS = 1_000
BATCH = 200  # keeps a report under what a request may hold


class Usage:
    """Bounded: beyond it what happens goes unreported, and is counted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._uses: dict[str, Use] = {}
        self._refusals: list[Refusal] = []
        self.dropped = 0

    def used(self, token: str, address: str | None) -> None:
        known = self._uses.get(token)
        if known is None and len(self._uses) >= MAX_TOKENS:
            self.dropped += 1
            return
        count = 1 + (known.count if known else 0)
        self._uses[token] = Use(id=token, count=count, time=datetime.now(UTC), ip=address)

    def refused(
        self, token: str, reason: str, address: str | None, route: str, request_id: str | None
    ) -> None:
        if len(self._refusals) >= MAX_REFUSALS:
            self.dropped += 1
            return
        self._refusals.append(
            Refusal(
                id=token,
                time=datetime.now(UTC),
                reason=reason,
                address=address,
                route=route,
                request_id=request_id,
            )
        )

    async def report(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            await self.flush()

    async def flush(self) -> None:
        """Reports what there is, in as many requests as that takes; stops where nobody listens, to go on later."""
        while self._uses or self._refusals:
            uses = [self._uses.pop(token) for token in list(self._uses)[:BATCH]]
            refusals, self._refusals = self._refusals[:BATCH], self._refusals[BATCH:]
            report = ReportUse(uses=tuple(uses), refusals=tuple(refusals))
            if isinstance(await rpc.call(self._client, REPORT_USE, report), Failure):
                self._keep(report)
                return

    def _keep(self, report: ReportUse) -> None:
        for use in report.uses:
            newer = self._uses.get(use.id)
            self._uses[use.id] = (
                msgspec.structs.replace(newer, count=newer.count + use.count) if newer else use
            )
        self._refusals = [*report.refusals, *self._refusals][:MAX_REFUSALS]
