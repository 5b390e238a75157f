"""What a process counts and measures about itself. `tallystick.producer.Producer` sends it as ``metrics.reported`` events
with its heartbeats, and the metrics service adds each up once; `tallystick.metrics.catalogue` says what there is.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from math import inf

from tallystick.contracts.events import Counted, Measured, MetricsReported

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of every histogram's buckets."""
MICRO = 1_000_000
MAX_SERIES = 2000
"""Counters kept at once; beyond it what is counted is dropped, and counted."""
MAX_LABEL = 256
"""Characters of a label's value. A report with a longer one is none to the metrics service, and all of it would be lost."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Measures:
    def __init__(self) -> None:
        self._counters: Counter[_Key] = Counter()
        self._gauges: dict[_Key, Callable[[], float]] = {}
        self._histograms: dict[str, _Histogram] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Adds to a counter. One of seconds is counted in microseconds."""
        key = (name, tuple(labels.items()))
        if key not in self._counters and (
            len(self._counters) >= MAX_SERIES or not all(map(_is_label, labels.values()))
        ):
            key = ("tallystick_series_dropped_total", ())
        self._counters[key] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Adds to a histogram."""
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = _Histogram()
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.sum_s += seconds

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Has a gauge read whenever there is a report."""
        self._gauges[name, tuple(labels.items())] = read

    def take(self) -> MetricsReported:
        """What was counted since the last time, and what the gauges show now."""
        histograms, self._histograms = self._histograms, {}
        for name, histogram in histograms.items():
            self._count_histogram(name, histogram)
        counters, self._counters = self._counters, Counter()
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

    def _count_histogram(self, name: str, histogram: "_Histogram") -> None:
        total = 0
        for bound, count in zip([*SECONDS, inf], histogram.counts, strict=True):
            total += count
            self.count(f"{name}_bucket", total, le="+Inf" if bound == inf else f"{bound:g}")
        self.count(f"{name}_sum", int(histogram.sum_s * MICRO))
        self.count(f"{name}_count", total)


def _is_label(value: str) -> bool:
    return 0 < len(value) <= MAX_LABEL and "\0" not in value


class _Histogram:
    """``counts``: how many fell between each bound and the one before it."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum_s = 0.0
