"""Prometheus' text format 0.0.4, and OpenMetrics 1.0.

Written here and not by prometheus-client because that prints a counter named ``thread_starts`` as
``thread_starts_total``, and the original's users scrape the former.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tallystick.metrics.catalogue import ALL, MICRO, Counter, Histogram, Metric

ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Sample(NamedTuple):
    """``labels``: as they are printed, without braces."""

    name: str
    labels: str
    value: float


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


def labels(values: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in values.items())


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
    found = by_name.get(metric.name, [])
    per = 1
    if isinstance(metric, Counter):
        shown = {sample.labels for sample in found}
        found = [*found, *(Sample(metric.name, each, 0) for each in _expected(metric) if each not in shown)]
        per = metric.per
    return head + [_line(metric.name, sample.labels, sample.value / per) for sample in found]


def _expected(metric: Counter) -> list[str]:
    """The printed labels that a counter has from the start."""
    return [labels({metric.labels[0]: value}) for value in metric.values] if metric.labels else [""]


def _histogram(metric: Histogram, by_name: Mapping[str, list[Sample]]) -> list[str]:
    buckets = sorted(by_name.get(f"{metric.name}_bucket", []), key=lambda sample: float(sample.labels[4:-1]))
    (count,) = by_name.get(f"{metric.name}_count") or [Sample("", "", 0)]
    (total,) = by_name.get(f"{metric.name}_sum") or [Sample("", "", 0)]
    if not buckets:
        buckets = [Sample("", 'le="+Inf"', 0)]
    return [
        *(_line(f"{metric.name}_bucket", sample.labels, sample.value) for sample in buckets),
        _line(f"{metric.name}_sum", "", total.value / MICRO),
        _line(f"{metric.name}_count", "", count.value),
    ]


def _line(name: str, labels: str, value: float) -> str:
    shown = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{name}{{{labels}}} {shown}" if labels else f"{name} {shown}"
