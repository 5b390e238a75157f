"""Prometheus' text format 0.0.4, and OpenMetrics 1.0.

Written here and not by prometheus-client because that prints a counter named ``thread_starts`` as
``thread_starts_total``, and the original's users scrape the former.
"""

from collections.abc import Iterable, Mapping

from tallystick.contracts.metrics import Sample
from tallystick.metrics.catalogue import ALL, Counter, Histogram, Metric


def text(samples: Iterable[Sample], *, openmetrics: bool = False) -> str:
    """Every declared metric, each with its HELP and TYPE lines. A counter that never counted is 0, if it has no labels or
    a closed set of them. The text format has an empty line between metrics, as the original's output has;
    OpenMetrics allows none.
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    families = ["\n".join(_lines(metric, by_name, openmetrics=openmetrics)) for metric in ALL]
    return "\n".join([*families, "# EOF", ""]) if openmetrics else "\n\n".join(families) + "\n"


def label_text(labels: Mapping[str, str], names: Iterable[str]) -> str:
    """The labels as they stand in braces, in the order of ``names``. An absent label is the same as an empty one."""
    return ",".join([f'{name}="{_escaped(labels.get(name, ""))}"' for name in names])


def _escaped(value: str) -> str:
    # With str.translate a line takes more than twice as long.
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _lines(metric: Metric, by_name: Mapping[str, list[Sample]], *, openmetrics: bool) -> list[str]:
    family, kind = metric.name, str(metric.type)
    if openmetrics and kind == "counter":
        # There a counter's family is named without the `_total` that its samples end in. The original's do not end
        # so: as counters they would be renamed for Prometheus, which asks for OpenMetrics unless told otherwise.
        family = metric.name.removesuffix("_total")
        kind = "counter" if family != metric.name else "unknown"
    head = [f"# HELP {family} {metric.help}", f"# TYPE {family} {kind}"]
    if isinstance(metric, Histogram):
        return head + _histogram(metric, by_name)
    samples = by_name.get(metric.name, [])
    if isinstance(metric, Counter):
        samples = [*samples, *_uncounted(metric, samples)]
    return head + sorted([_line(sample, metric.labels) for sample in samples])


def _uncounted(metric: Counter, samples: list[Sample]) -> list[Sample]:
    """Zeros for the series that a counter has from the start."""
    if not metric.values:
        return [] if metric.labels or samples else [Sample(name=metric.name, labels={}, value=0)]
    (label,) = metric.labels
    counted = {sample.labels[label] for sample in samples}
    return [
        Sample(name=metric.name, labels={label: value}, value=0)
        for value in metric.values
        if value not in counted
    ]


def _histogram(metric: Histogram, by_name: Mapping[str, list[Sample]]) -> list[str]:
    bucket, total, count = (f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))
    buckets = by_name.get(bucket) or [Sample(name=bucket, labels={"le": "+Inf"}, value=0)]
    return [
        *(
            _line(sample, ("le",))
            for sample in sorted(buckets, key=lambda sample: float(sample.labels["le"]))
        ),
        *(
            _line(by_name.get(name, [Sample(name=name, labels={}, value=0)])[0], ())
            for name in (total, count)
        ),
    ]


def _line(sample: Sample, names: Iterable[str]) -> str:
    number = float(sample.value)
    value = str(int(number)) if number.is_integer() else repr(number)
    return (
        f"{sample.name}{{{label_text(sample.labels, names)}}} {value}" if names else f"{sample.name} {value}"
    )
