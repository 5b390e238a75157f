"""What a process counts and measures about itself. `shared.events.Producer` sends it as ``metrics.reported`` events
with its heartbeats, and the metrics service adds each up once; `services.metrics.declared` says what there is.
"""

from collections import Counter
from collections.abc import Callable

from shared.contracts import Counted, Measured, MetricsReported

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of every histogram's buckets."""
MICRO = 1_000_000
MAX_SERIES = 2000
"""Counters kept at once; beyond it what is counted is dropped, and counted."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Measures:
    def __init__(self) -> None:
        self._counters: Counter[_Key] = Counter()
        self._gauges: dict[_Key, Callable[[], float]] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Adds to a counter. One of seconds is counted in microseconds."""
        key = (name, tuple(labels.items()))
        if key not in self._counters and len(self._counters) >= MAX_SERIES:
            key = ("tallystick_series_dropped_total", ())
        self._counters[key] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Adds to a histogram."""
        for bound in SECONDS:
            if seconds <= bound:
                self.count(f"{name}_bucket", le=f"{bound:g}")
        self.count(f"{name}_bucket", le="+Inf")
        self.count(f"{name}_sum", int(seconds * MICRO))
        self.count(f"{name}_count")

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Has a gauge read whenever there is a report."""
        self._gauges[name, tuple(labels.items())] = read

    def take(self) -> MetricsReported:
        """What was counted since the last time, and what the gauges show now."""
        counters, self._counters = self._counters, Counter()
        return MetricsReported(
            counters=tuple(
                Counted(name=name, labels=dict(labels), value=value)
                for (name, labels), value in counters.items()
                if value
            ),
            gauges=tuple(
                Measured(name=name, labels=dict(labels), value=read())
                for (name, labels), read in self._gauges.items()
            ),
        )
