"""The statistics of the services, and the counted metrics."""

import gzip
from typing import Annotated, Literal

from msgspec import Meta

from tallystick.contracts.messages import Message
from tallystick.contracts.operation import AdministrativeRequest, Operation


class AskTokensStats(Message, frozen=True):
    pass


class TokensStats(Message, frozen=True):
    """``installation``: identifies this installation; it is the same at every replica and after every restart."""

    accounts: int
    postgres: str
    installation: str = ""


MAX_STATS_SECONDS = 7 * 24 * 3600


class AskMetricsStats(Message, frozen=True):
    """``seconds``: how far back the counters reach, up to MAX_STATS_SECONDS."""

    seconds: int


class MetricsStats(Message, frozen=True):
    connections: dict[str, int]
    counters: dict[str, int]


MAX_HISTORY_MINUTES = 24 * 60


class AskHistory(Message, frozen=True):
    """Requests the counts of the last minutes, of every kind that begins with ``kind``."""

    minutes: Annotated[int, Meta(ge=1, le=MAX_HISTORY_MINUTES)]
    kind: Annotated[str, Meta(min_length=1, max_length=64)]


class History(Message, frozen=True):
    """Counts by kind, one for each clock minute, from the oldest to the current one."""

    counts: dict[str, tuple[int, ...]]


class AskExposition(Message, frozen=True):
    """``openmetrics``: in OpenMetrics 1.0 rather than Prometheus' text format 0.0.4."""

    openmetrics: bool = False


class Exposition(Message, frozen=True):
    """The text, compressed with gzip and in base64."""

    gzip: bytes

    @property
    def text(self) -> str:
        return gzip.decompress(self.gzip).decode()


class AskSnapshot(Message, frozen=True):
    """``metrics``: the names of the metrics to show."""

    metrics: Annotated[tuple[str, ...], Meta(max_length=64)]


class Sample(Message, frozen=True):
    """The value of one series, in the unit of `/metrics`.

    Args:
        name: of the metric; for a part of a histogram with ``_bucket``, ``_sum`` or ``_count`` appended.
        labels: by name.
        value: the value.
    """

    name: str
    labels: dict[str, str]
    value: float


class Snapshot(Message, frozen=True):
    """The current series of the requested metrics. A series that was never counted is left out: it is 0."""

    samples: tuple[Sample, ...]


class AskCounting(Message, frozen=True):
    pass


class Counting(Message, frozen=True):
    """Whether events are counted and stored.

    Args:
        refusal: why counting waits for a decision of the operator; None if it does not wait.
        stream: ``writable``; ``full``: it is at its limit; ``failing``: NATS answers and the stream stores nothing.
    """

    refusal: str | None
    stream: Literal["writable", "full", "failing"]


class ResumeCounting(AdministrativeRequest, frozen=True):
    """The decision to count the existing stream, from its first message."""


class Resumed(Message, frozen=True):
    """``refusal``: why counting had stopped; None if it had not."""

    refusal: str | None


TOKENS_STATS = Operation("tallystick.v1.tokens.stats", AskTokensStats, TokensStats)
METRICS_STATS = Operation("tallystick.v1.metrics.stats", AskMetricsStats, MetricsStats)
METRICS_HISTORY = Operation("tallystick.v1.metrics.history", AskHistory, History)
EXPOSITION = Operation("tallystick.v1.metrics.exposition", AskExposition, Exposition)
SNAPSHOT = Operation("tallystick.v1.metrics.snapshot", AskSnapshot, Snapshot)
COUNTING = Operation("tallystick.v1.metrics.counting", AskCounting, Counting)
RESUME_COUNTING = Operation("tallystick.v1.operator.metrics.resume", ResumeCounting, Resumed, mutates=True)
