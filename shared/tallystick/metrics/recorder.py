"""Records the metrics of a process. `tallystick.producer.Producer` sends them as ``metrics.reported`` events with its
heartbeats, and the metrics service adds each report once. `tallystick.metrics.catalogue` has all metrics.
"""

from bisect import bisect_left
from collections.abc import Callable
from math import inf

from tallystick.contracts.events import Counted, Measured, MetricsReported
from tallystick.metrics.catalogue import MICRO, SECONDS, SERIES_DROPPED, Counter, Gauge, Histogram, Metric

MAX_SERIES = 2000
"""Maximum number of counters between two reports. Further ones are dropped, and counted."""
MAX_LABEL = 256
"""Maximum length of a label's value, in characters. The metrics service rejects a whole report with a longer one."""

_Labels = tuple[tuple[str, str], ...]


class MetricsRecorder:
    def __init__(self) -> None:
        self._counters: dict[tuple[str, _Labels], int] = {}
        self._gauges: dict[tuple[str, _Labels], Callable[[], float]] = {}
        self._histograms: dict[Histogram, _Buckets] = {}

    def count(self, metric: Counter, amount: int = 1, **labels: str) -> None:
        """Adds to a counter, in the unit in which it is stored (see `Counter.per`)."""
        self._add(metric.name, _labels(metric, labels), amount)

    def observe(self, metric: Histogram, seconds: float) -> None:
        buckets = self._histograms.get(metric)
        if buckets is None:
            buckets = self._histograms[metric] = _Buckets()
        buckets.counts[bisect_left(SECONDS, seconds)] += 1
        buckets.sum_s += seconds

    def gauge(self, metric: Gauge, read: Callable[[], float], **labels: str) -> None:
        """Registers a gauge, which is read for each report."""
        self._gauges[metric.name, _labels(metric, labels)] = read

    def take(self) -> MetricsReported:
        """Takes the counters since the last report, and the present values of the gauges."""
        histograms, self._histograms = self._histograms, {}
        for metric, buckets in histograms.items():
            self._add_histogram(metric.name, buckets)
        counters, self._counters = self._counters, {}
        return MetricsReported(
            counters=tuple(
                Counted(name=name, labels=dict(labels), value=value)
                for (name, labels), value in counters.items()
                if value
            ),
            gauges=tuple(
                Measured(name=name, labels=dict(labels), value=float(read()))
                for (name, labels), read in self._gauges.items()
            ),
        )

    def _add(self, name: str, labels: _Labels, amount: int) -> None:
        key = name, labels
        if key not in self._counters and (
            len(self._counters) >= MAX_SERIES or not all(_is_label(value) for _, value in labels)
        ):
            key = SERIES_DROPPED.name, ()
        self._counters[key] = self._counters.get(key, 0) + amount

    def _add_histogram(self, name: str, buckets: "_Buckets") -> None:
        total = 0
        for bound, count in zip([*SECONDS, inf], buckets.counts, strict=True):
            total += count
            self._add(f"{name}_bucket", (("le", "+Inf" if bound == inf else f"{bound:g}"),), total)
        self._add(f"{name}_sum", (), int(buckets.sum_s * MICRO))
        self._add(f"{name}_count", (), total)


def _labels(metric: Metric, labels: dict[str, str]) -> _Labels:
    """The labels in the metric's order.

    Raises:
        TypeError: they are not the metric's.
    """
    if labels.keys() != set(metric.labels):
        raise TypeError(f"{metric.name} takes the labels {metric.labels}, not {tuple(labels)}")
    return tuple((name, labels[name]) for name in metric.labels)


def _is_label(value: str) -> bool:
    return 0 < len(value) <= MAX_LABEL and "\0" not in value


class _Buckets:
    """``counts``: how many fell between each bound and the one before it."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum_s = 0.0
