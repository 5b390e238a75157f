"""What the metrics service answers to each request. Any replica answers, since PostgreSQL has it all."""

import gzip

from services.metrics import declared, store
from services.metrics.exposition import Sample, labels, text
from shared import contracts as c
from shared.contracts import Failure, FieldError
from shared.events import HEARTBEAT_S
from shared.postgres import Pool
from shared.rpc import Handlers

MAX_SECONDS = 7 * 24 * 3600
LATE_S = 2 * HEARTBEAT_S + 1
FRESH_S = 4 * HEARTBEAT_S


class MetricsHandlers:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def all(self) -> Handlers:
        return {
            c.EXPOSITION: self.exposition,
            c.METRICS_STATS: self.stats,
            c.METRICS_HISTORY: self.history,
        }

    async def exposition(self, request: c.AskExposition) -> c.Exposition:
        threads, late = await store.threads(self._pool, LATE_S)
        accounts = await store.accounts_by_state(self._pool)
        samples = [
            *await store.counters(self._pool),
            *await store.gauges(self._pool, FRESH_S),
            *threads,
            Sample(declared.UNRESPONSIVE.name, "", late),
            *(
                Sample(declared.ACCOUNTS.name, labels({"state": state}), number)
                for state, number in accounts.items()
            ),
        ]
        printed = text(samples, openmetrics=request.openmetrics)
        # A tenth of its size, so that ten thousand series stay under what a NATS message may hold.
        return c.Exposition(gzip=gzip.compress(printed.encode(), compresslevel=1, mtime=0))

    async def stats(self, request: c.AskMetricsStats) -> c.MetricsStats | Failure:
        if not 0 <= request.seconds <= MAX_SECONDS:
            return Failure(
                code="bad_request", errors=(FieldError(field="seconds", message=f"0 to {MAX_SECONDS}"),)
            )
        return c.MetricsStats(
            connections=await store.accounts_by_state(self._pool),
            counters=await store.recent(self._pool, request.seconds),
        )

    async def history(self, request: c.AskHistory) -> c.History:
        return c.History(counts=await store.history(self._pool, request.kind, request.minutes))
