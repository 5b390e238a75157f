"""Handles the requests to the metrics service. Any replica answers: all state is in PostgreSQL."""

import gzip
import logging
from collections.abc import Callable, Mapping

from tallystick.contracts.messages import FieldError
from tallystick.contracts.metrics import (
    COUNTING,
    EXPOSITION,
    METRICS_HISTORY,
    METRICS_STATS,
    RESUME_COUNTING,
    SNAPSHOT,
    AskCounting,
    AskExposition,
    AskHistory,
    AskMetricsStats,
    AskSnapshot,
    Counting,
    Exposition,
    History,
    MetricsStats,
    ResumeCounting,
    Resumed,
    Sample,
    Snapshot,
)
from tallystick.contracts.operation import Failure
from tallystick.metrics import catalogue
from tallystick.metrics.catalogue import Gauge
from tallystick.producer import HEARTBEAT_S, StreamHealth
from tallystick.rpc import batches
from tallystick.rpc.server import Handlers
from tallystick_server.metrics.exposition import text
from tallystick_server.metrics.series import LINE_BYTES
from tallystick_server.metrics.store import positions, recounts, reports
from tallystick_server.runtime.postgres import Pool

log = logging.getLogger(__name__)

MAX_SECONDS = 7 * 24 * 3600
LATE_S = 2 * HEARTBEAT_S + 1
FRESH_S = 4 * HEARTBEAT_S

# An answer is one NATS message of at most 1 MiB, which holds 786,000 bytes in base64. Text that cannot be compressed
# takes at most COUNTER_BYTES + GAUGE_BYTES + three times WORDS_BYTES, and the descriptions: 766,000.
WORDS_BYTES = 18_000
MAX_WORDS = 100
OTHER = "other"
CONNECTIONS = dict.fromkeys(
    ("init", "connected", "connecting", "authenticationError", "connectError", "unset", "disconnected"), 0
)
"""The states that EmailEngine's ``connections`` always has."""


class MetricsHandlers:
    """Args:
    pool: of the database with the counters.
    stream_health: whether the stream stores the events of this process.
    """

    def __init__(self, pool: Pool, stream_health: Callable[[], StreamHealth]) -> None:
        self._pool = pool
        self._stream_health = stream_health

    def all(self) -> Handlers:
        return {
            EXPOSITION: self.exposition,
            SNAPSHOT: self.snapshot,
            METRICS_STATS: self.stats,
            METRICS_HISTORY: self.history,
            COUNTING: self.counting,
            RESUME_COUNTING: self.resume_counting,
        }

    async def counting(self, _: AskCounting) -> Counting:
        return Counting(refusal=await positions.halt_reason(self._pool), stream=self._stream_health())

    async def resume_counting(self, request: ResumeCounting) -> Resumed:
        halt_reason = await positions.resume(self._pool)
        if halt_reason is not None:
            log.warning(
                "%s resumed counting with the current stream, after: %s", request.actor.name, halt_reason
            )
        return Resumed(refusal=halt_reason)

    async def exposition(self, request: AskExposition) -> Exposition:
        printed = text(await self._samples(), openmetrics=request.openmetrics)
        return Exposition(gzip=gzip.compress(printed.encode(), compresslevel=1, mtime=0))

    async def snapshot(self, request: AskSnapshot) -> Snapshot | Failure:
        names = {f"{name}{part}" for name in request.metrics for part in ("", *catalogue.HISTOGRAM_PARTS)}
        snapshot = Snapshot(samples=tuple(sample for sample in await self._samples() if sample.name in names))
        if batches.fits(snapshot):
            return snapshot
        message = f"{len(snapshot.samples)} series are more than one answer holds: ask for fewer metrics"
        return Failure(code="bad_request", errors=(FieldError(field="metrics", message=message),))

    async def _samples(self) -> list[Sample]:
        threads, late = await reports.threads(self._pool, LATE_S)
        accounts = await reports.accounts_by_state(self._pool)
        return [
            *await reports.counters(self._pool),
            *await reports.gauges(self._pool, FRESH_S),
            *await recounts.comparison(self._pool),
            _sample(catalogue.COUNTING_REFUSED, await positions.halt_reason(self._pool) is not None),
            _sample(catalogue.STREAM_WRITABLE, self._stream_health() == "writable"),
            _sample(catalogue.UNRESPONSIVE, late),
            *(
                _sample(catalogue.THREADS, number, type=kind, recent=recent)
                for recent, numbers in threads.items()
                for kind, number in largest(numbers).items()
            ),
            *(
                _sample(catalogue.ACCOUNTS, number, state=state)
                for state, number in largest(accounts).items()
            ),
        ]

    async def stats(self, request: AskMetricsStats) -> MetricsStats | Failure:
        if not 0 <= request.seconds <= MAX_SECONDS:
            return Failure(
                code="bad_request", errors=(FieldError(field="seconds", message=f"0 to {MAX_SECONDS}"),)
            )
        return MetricsStats(
            connections=CONNECTIONS | largest(await reports.accounts_by_state(self._pool)),
            counters=await reports.recent(self._pool, request.seconds),
        )

    async def history(self, request: AskHistory) -> History | Failure:
        history = History(counts=await reports.history(self._pool, request.kind, request.minutes))
        if batches.fits(history):
            return history
        message = f"{len(history.counts)} kinds are more than one answer holds: ask for fewer minutes"
        return Failure(code="bad_request", errors=(FieldError(field="minutes", message=message),))


def _sample(metric: Gauge, value: float, **labels: str) -> Sample:
    return Sample(name=metric.name, labels=labels, value=float(value))


def largest(numbers: Mapping[str, int]) -> dict[str, int]:
    """The most frequent values within the budget; the rest together as ``other``. Account states and thread types come
    from outside, and may be different each time.
    """
    shown: dict[str, int] = {}
    left = WORDS_BYTES
    for word, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
        # Escaped, a character takes two bytes or is one of more.
        left -= LINE_BYTES + 2 * len(word.encode())
        name = word if len(shown) < MAX_WORDS and left >= 0 else OTHER
        shown[name] = shown.get(name, 0) + number
    return shown
