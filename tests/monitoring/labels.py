"""Which labels the result of a PromQL expression has, and whether everything in it is something we export."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import promql_parser as promql

from tallystick.metrics import catalogue

OF_TARGET = frozenset({"job", "instance", "pod"})
"""Labels that Prometheus, or its operator, adds to everything that it scrapes."""
OF_PROMETHEUS: Mapping[str, frozenset[str]] = {
    "up": OF_TARGET,
    "scrape_duration_seconds": OF_TARGET,
    "ALERTS": OF_TARGET | {"alertname", "alertstate", "severity"},
}
VARIABLES = {"$__rate_interval": "1m", "$__range": "3h"}
"""What Grafana puts in before it asks."""


class Wrong(AssertionError):
    """What a query asks for is not there."""


def parsed(expr: str) -> promql.Expr:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return promql.parse(expr)


def exported(name: str) -> frozenset[str] | None:
    """The labels of a metric as it is scraped; None where we have no such metric."""
    for suffix, added in (("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        metric = catalogue.BY_NAME.get(name.removesuffix(suffix))
        if name.endswith(suffix) and metric is not None and metric.type == "histogram":
            return OF_TARGET | set(metric.labels) | added
    metric = catalogue.BY_NAME.get(name)
    return OF_TARGET | set(metric.labels) if metric is not None and metric.type != "histogram" else None


@dataclass
class Labels:
    """Args:
    recorded: the labels of what rules record, by name.
    names: every metric that was asked for so far.
    selected: the values that were asked for so far, by label.
    """

    recorded: dict[str, frozenset[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    selected: dict[str, set[str]] = field(default_factory=dict)

    def of(self, expr: promql.Expr) -> frozenset[str]:
        """Raises:
        Wrong: it names a metric or a label that is not there.
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
        labels = self.recorded.get(name) or OF_PROMETHEUS.get(name) or exported(name)
        if labels is None:
            raise Wrong(f"nobody exports or records {name}")
        for matcher in selector.matchers.matchers:
            _known({matcher.name}, labels, name)
            self.selected.setdefault(matcher.name, set()).add(matcher.value)
        if "instance" in labels and name != "ALERTS" and 'job="tallystick"' not in selector.prettify():
            raise Wrong(f"{name} may be anybody's")  # as `events`, `threads` and `up` surely are
        return labels

    def _aggregated(self, expr: promql.AggregateExpr) -> frozenset[str]:
        labels = self.of(expr.expr)
        if str(expr.op) in {"topk", "bottomk"}:
            return labels
        if expr.modifier is None:
            return frozenset()
        named = frozenset(expr.modifier.labels)
        _known(named, labels | OF_TARGET, expr.prettify())
        return named if expr.modifier.type == promql.AggModifierType.By else labels - named

    def _called(self, call: promql.Call) -> frozenset[str]:
        labels = frozenset[str]().union(*(self.of(argument) for argument in call.args))
        match call.func.name:
            case "histogram_quantile":
                _known({"le"}, labels, call.prettify())
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
                _known({source.val}, labels, call.prettify())
                return labels | {added.val}
        return labels

    def _both(self, expr: promql.BinaryExpr) -> frozenset[str]:
        sides = self.of(expr.lhs), self.of(expr.rhs)
        modifier = expr.modifier
        matching = modifier.matching if modifier is not None else None
        if matching is not None:
            for labels in sides:
                _known(matching.labels, labels, expr.prettify())
        elif all(sides) and sides[0] != sides[1]:
            raise Wrong(f"{expr.prettify()} compares {set(sides[0])} with {set(sides[1])}")
        if (
            modifier is not None
            and matching is not None
            and modifier.card == promql.VectorMatchCardinality.OneToOne
        ):
            return frozenset(matching.labels)
        return sides[0] or sides[1]


def _known(wanted: Iterable[str], labels: frozenset[str], where: str) -> None:
    if missing := set(wanted) - labels:
        raise Wrong(f"{where} has no {missing}")
