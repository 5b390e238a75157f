"""The labels of a PromQL expression's result. A metric or label that is not exported is an error."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import promql_parser as promql

from tallystick.metrics import catalogue

TARGET_LABELS = frozenset({"job", "instance", "pod"})
"""Labels that Prometheus, or its operator, adds to everything that it scrapes."""
PROMETHEUS_METRICS: Mapping[str, frozenset[str]] = {
    "up": TARGET_LABELS,
    "scrape_duration_seconds": TARGET_LABELS,
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity"},
}
VARIABLES = {"$__rate_interval": "1m", "$__range": "3h"}
"""Grafana's variables, and the values to parse a query with."""


class InvalidQuery(AssertionError):
    """A query uses an unknown metric or label, or compares different labels."""


def parsed(expr: str) -> promql.Expr:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return promql.parse(expr)


def exported(name: str) -> frozenset[str] | None:
    """The labels of a metric as it is scraped, or None for an unknown metric."""
    for suffix, added in (("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        metric = catalogue.BY_NAME.get(name.removesuffix(suffix))
        if name.endswith(suffix) and metric is not None and metric.type == "histogram":
            return TARGET_LABELS | set(metric.labels) | added
    metric = catalogue.BY_NAME.get(name)
    return TARGET_LABELS | set(metric.labels) if metric is not None and metric.type != "histogram" else None


@dataclass
class Labels:
    """Args:
    recorded: the labels of the metrics that rules record, by name.
    names: every metric that the queries so far have used.
    selected: the label values that the queries so far have selected, by label.
    """

    recorded: dict[str, frozenset[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    selected: dict[str, set[str]] = field(default_factory=dict)

    def of(self, expr: promql.Expr) -> frozenset[str]:
        """Raises:
        InvalidQuery: the expression uses an unknown metric or label, or compares different labels.
        """
        labels = frozenset[str]()
        match expr:
            case promql.VectorSelector():
                labels = self._selected(expr)
            case promql.MatrixSelector():
                labels = self._selected(expr.vector_selector)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                labels = self.of(expr.expr)
            case promql.AggregateExpr():
                labels = self._aggregated(expr)
            case promql.Call():
                labels = self._called(expr)
            case promql.BinaryExpr():
                labels = self._both(expr)
        return labels

    def _selected(self, selector: promql.VectorSelector) -> frozenset[str]:
        name = selector.name or ""
        self.names.add(name)
        labels = self.recorded.get(name) or PROMETHEUS_METRICS.get(name) or exported(name)
        if labels is None:
            raise InvalidQuery(f"{name} is not exported or recorded")
        for matcher in selector.matchers.matchers:
            _require_labels({matcher.name}, labels, name)
            self.selected.setdefault(matcher.name, set()).add(matcher.value)
        if "instance" in labels and name != "ALERTS" and 'job="tallystick"' not in selector.prettify():
            # Other exporters also have metrics such as `events`, `threads` and `up`.
            raise InvalidQuery(f"{name} is selected without job")
        return labels

    def _aggregated(self, expr: promql.AggregateExpr) -> frozenset[str]:
        labels = self.of(expr.expr)
        if str(expr.op) in {"topk", "bottomk"}:
            return labels
        if expr.modifier is None:
            return frozenset()
        named = frozenset(expr.modifier.labels)
        _require_labels(named, labels | TARGET_LABELS, expr.prettify())
        return named if expr.modifier.type == promql.AggModifierType.By else labels - named

    def _called(self, call: promql.Call) -> frozenset[str]:
        labels = frozenset[str]().union(*(self.of(argument) for argument in call.args))
        match call.func.name:
            case "histogram_quantile":
                _require_labels({"le"}, labels, call.prettify())
                return labels - {"le"}
            case "absent":
                (selector,) = call.args
                assert isinstance(selector, promql.VectorSelector)
                equal = promql.MatchOp.Equal
                return frozenset(m.name for m in selector.matchers.matchers if m.op == equal)
            case "label_replace":
                _, added, _, source, _ = call.args
                assert isinstance(added, promql.StringLiteral)
                assert isinstance(source, promql.StringLiteral)
                _require_labels({source.val}, labels, call.prettify())
                return labels | {added.val}
        return labels

    def _both(self, expr: promql.BinaryExpr) -> frozenset[str]:
        sides = self.of(expr.lhs), self.of(expr.rhs)
        modifier = expr.modifier
        matching = modifier.matching if modifier is not None else None
        if matching is not None:
            for labels in sides:
                _require_labels(matching.labels, labels, expr.prettify())
        elif all(sides) and sides[0] != sides[1]:
            raise InvalidQuery(f"{expr.prettify()} compares {set(sides[0])} with {set(sides[1])}")
        if (
            modifier is not None
            and matching is not None
            and modifier.card == promql.VectorMatchCardinality.OneToOne
        ):
            return frozenset(matching.labels)
        return sides[0] or sides[1]


def _require_labels(names: Iterable[str], labels: frozenset[str], source: str) -> None:
    if missing := set(names) - labels:
        raise InvalidQuery(f"{source} has no {missing}")
