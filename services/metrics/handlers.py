"""What the metrics service answers to each request. Any replica answers, since PostgreSQL has it all."""

from services.metrics import declared, store
from services.metrics.declared import Metric
from services.metrics.exposition import label, text
from shared import contracts as c
from shared.contracts import Failure, FieldError
from shared.postgres import Pool
from shared.rpc import Handlers


class MetricsHandlers:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def all(self) -> Handlers:
        return {c.EXPOSITION: self.exposition, c.METRICS_STATS: self.stats}

    async def exposition(self, _: c.AskExposition) -> c.Exposition:
        samples = [
            *await store.counters(self._pool),
            *_by_label(declared.ACCOUNTS, "state", await store.accounts_by_state(self._pool)),
            *_by_label(declared.THREADS_ALIVE, "type", await store.threads_by_type(self._pool)),
        ]
        return c.Exposition(text=text(samples))

    async def stats(self, request: c.AskMetricsStats) -> c.MetricsStats | Failure:
        if not 0 <= request.seconds <= c.MAX_STATS_SECONDS:
            return Failure(
                code="bad_request",
                errors=(FieldError(field="seconds", message=f"0 to {c.MAX_STATS_SECONDS}"),),
            )
        return c.MetricsStats(
            connections=await store.accounts_by_state(self._pool),
            counters=await store.recent(self._pool, request.seconds),
        )


def _by_label(metric: Metric, name: str, values: dict[str, int]) -> list[tuple[str, str, int]]:
    return [(metric.name, label(name, value), number) for value, number in values.items()]
