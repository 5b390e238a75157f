"""Counts tokens by state and by time to expiry, for the metrics, and deletes outdated rows."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from tallystick.metrics.catalogue import TOKENS, TOKENS_EXPIRING, TOKENS_EXPIRING_IN_USE
from tallystick.metrics.recorder import MetricsRecorder
from tallystick_server.runtime.postgres import UNAVAILABLE, Pool
from tallystick_server.tokens.store import statistics
from tallystick_server.tokens.store.statistics import EXPIRING_DAYS, STATES

EVERY_S = 5.0
SHARE = 0.02
"""Of the time, at most this much is spent on counting: a table of millions is counted less often."""


class Inventory:
    def __init__(self, pool: Pool, recorder: MetricsRecorder) -> None:
        self._pool = pool
        self._counts: Mapping[str, int] = {}
        for state in STATES:
            recorder.gauge(TOKENS, partial(self._of, f"{TOKENS.name}:{state}"), state=state)
        for metric in (TOKENS_EXPIRING, TOKENS_EXPIRING_IN_USE):
            for days in EXPIRING_DAYS:
                recorder.gauge(metric, partial(self._of, f"{metric.name}:{days}"), days=str(days))

    async def keep(self) -> None:
        """Runs until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            with suppress(*UNAVAILABLE):
                self._counts = await statistics.count(self._pool)
                await statistics.forget_old(self._pool)
            await asyncio.sleep(max(EVERY_S, (clock() - began) / SHARE))

    def _of(self, name: str) -> int:
        return self._counts.get(name, 0)
