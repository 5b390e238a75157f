"""The Prometheus text format, version 0.0.4.

Written here and not by prometheus-client because that prints a counter named ``thread_starts`` as
``thread_starts_total``, and the original's users scrape the former.
"""

from collections.abc import Iterable

from services.metrics.declared import ALL, Metric


def text(samples: Iterable[tuple[str, str, int]]) -> str:
    """Every declared metric, each with its HELP and TYPE lines.

    Args:
        samples: name, labels as they are printed, value. A metric without a sample of its own is printed as 0
            where it has no labels.
    """
    by_name: dict[str, list[tuple[str, int]]] = {}
    for name, labels, value in samples:
        by_name.setdefault(name, []).append((labels, value))
    return "\n".join(_metric(metric, by_name.get(metric.name, [])) for metric in ALL)


def label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def _metric(metric: Metric, samples: list[tuple[str, int]]) -> str:
    if not samples and metric.type == "counter":
        samples = [("", 0)]
    lines = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
    lines += [
        f"{metric.name}{{{labels}}} {value}" if labels else f"{metric.name} {value}"
        for labels, value in samples
    ]
    return "\n".join(lines) + "\n"
