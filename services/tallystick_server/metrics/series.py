"""The series of metrics: a name and labels, as data. Only `exposition` formats them as text."""

from collections.abc import Iterable, Mapping

from tallystick_server.metrics.exposition import label_text

MAX_SERIES = 1000
"""Series kept of one metric; further ones are dropped, and counted."""
COUNTER_BYTES = 640_000
GAUGE_BYTES = 60_000
"""Maximum size of the series of all metrics, as text that cannot be compressed. `handlers` adds up what a NATS message
has room for.
"""
LINE_BYTES = 40
"""Size of a series besides its labels: its value, and its name, which compression finds in the line before."""
MAX_KEY_BYTES = 2_400
"""Maximum size of a series' labels, together with the source and boot of a gauge: they are a key in PostgreSQL, which
indexes up to 2,704 bytes.
"""

Labels = tuple[tuple[str, str], ...]
"""Names and values, ordered by name, so that the same labels are the same key."""
NO_LABELS: Labels = ()


def ordered(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


class SeriesBudget:
    """The labelled series that exist, by metric, within a budget.

    Args:
        existing: their names and labels.
        max_bytes: how large their text may become.
    """

    def __init__(
        self, existing: Iterable[tuple[str, Labels]] = (), *, max_bytes: int = COUNTER_BYTES
    ) -> None:
        self._labels: dict[str, set[Labels]] = {}
        self._left = max_bytes
        for name, labels in existing:
            self._add(name, labels, label_bytes(labels))

    def admits(self, name: str, labels: Labels) -> bool:
        """Whether this series exists, or was added."""
        existing = self._labels.get(name, ())
        if labels in existing:
            return True
        size = label_bytes(labels)
        if len(existing) >= MAX_SERIES or size > MAX_KEY_BYTES or self._left < LINE_BYTES + size:
            return False
        self._add(name, labels, size)
        return True

    def _add(self, name: str, labels: Labels, size: int) -> None:
        self._labels.setdefault(name, set()).add(labels)
        self._left -= LINE_BYTES + size


def label_bytes(labels: Labels) -> int:
    """The size of the labels' text."""
    return len(label_text(dict(labels), [name for name, _ in labels]).encode())
