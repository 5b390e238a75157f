"""Rules and dashboard query existing metrics and labels only, and link to existing documentation."""

import json
import re
import runpy
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallystick.metrics import catalogue
from tallystick_server.tokens.store.statistics import EXPIRING_DAYS
from tests.monitoring.labels import InvalidQuery, Labels, parsed
from tests.support.paths import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules"
GENERATED = runpy.run_path(str(ROOT / "deploy" / "grafana" / "generate.py"))
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "tallystick.json"

Rule = dict[str, Any]


def rules() -> Iterator[Rule]:
    """All rules; recording rules come first, because the others use their metrics."""
    for path in sorted(RULES.iterdir(), reverse=True):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


@cache
def recorded() -> Labels:
    registry = Labels()
    for rule in rules():
        labels = registry.of(parsed(rule["expr"]))
        if "record" in rule:
            registry.recorded[rule["record"]] = labels
    return registry


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
PANELS = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_rules_use_existing_metrics_and_labels():
    assert len(recorded().recorded) > 10
    assert len(ALERTS) > 20
    for name in recorded().recorded:
        assert name.startswith("tallystick:"), name
    assert recorded().selected["days"] <= {str(days) for days in EXPIRING_DAYS}


def test_recorded_metrics_are_aggregated_over_the_edges():
    for name, labels in recorded().recorded.items():
        assert not labels & {"instance", "pod"}, name


@pytest.mark.parametrize(
    "expr",
    [
        'rate(tallystick_token_check_total{job="tallystick"}[5m])',
        'rate(tallystick_token_checks{job="tallystick"}[5m])',
        'tallystick_token_verify_seconds{job="tallystick"}',
        'tallystick_edges_bucket{job="tallystick"}',
        'api_call{job="tallystick",status="503"}',
        'sum by (status) (api_call{job="tallystick"})',
        'histogram_quantile(0.9, rate(tallystick_token_verify_seconds_sum{job="tallystick"}[5m]))',
        'api_call{job="tallystick"} / tallystick_edges{job="tallystick"}',
        'api_call{job="tallystick"} / on (service) tallystick_edges{job="tallystick"}',
        'label_replace(tallystick_edges{job="tallystick"}, "a", "$1", "type", "(.*)")',
        "tallystick:nothing:rate5m",
        "events",
    ],
)
def test_an_unknown_metric_or_label_is_detected(expr: str):
    with pytest.raises(InvalidQuery):
        Labels().of(parsed(expr))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_summary_a_value_and_a_runbook(name: str):
    rule = ALERTS[name]
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert notes["summary"]
    assert "$value" in notes["description"]
    page, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    labels = recorded().of(parsed(rule["expr"]))
    for text in notes.values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_exactly_the_existing_alerts_are_documented():
    table = (ROOT / "docs" / "monitoring.md").read_text()
    listed = re.findall(r"^\| `(Tallystick\w+)` \| (\w+) \|", table, re.MULTILINE)
    assert listed == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]


def test_every_alert_fires_in_a_test_of_the_rules():
    cases = yaml.safe_load((ROOT / "tests" / "monitoring" / "rules.yml").read_text())["tests"]
    firing = {
        label
        for case in cases
        for check in case["promql_expr_test"]
        for sample in check.get("exp_samples", [])
        for label in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert firing == set(ALERTS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_uses_existing_metrics_and_labels(panel: dict[str, Any]):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets) > 0
    for target in targets:
        labels = recorded().of(parsed(target["expr"]))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    legends = [target["legendFormat"] for target in targets]
    assert len(set(legends)) == len(legends)


def test_the_panels_do_not_overlap():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    positions = [panel["gridPos"] for panel in panels]
    for position in positions:
        assert 0 <= position["x"] < position["x"] + position["w"] <= GENERATED["WIDTH"]
    for first, second in combinations(positions, 2):
        beside = first["x"] + first["w"] <= second["x"] or second["x"] + second["w"] <= first["x"]
        assert beside or first["y"] + first["h"] <= second["y"] or second["y"] + second["h"] <= first["y"]


def test_the_dashboard_file_is_up_to_date_with_its_generator():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard == GENERATED["dashboard"](), (
        "run: python deploy/grafana/generate.py > deploy/grafana/dashboards/..."
    )
    for annotation in dashboard["annotations"]["list"]:
        recorded().of(parsed(annotation["expr"]))


def test_every_metric_is_on_the_dashboard():
    queried = Labels(recorded().recorded)
    for panel in PANELS:
        for target in panel["targets"]:
            queried.of(parsed(target["expr"]))
    through_rules = {
        name for rule in rules() if rule.get("record") in queried.names for name in _names(rule["expr"])
    }
    displayed = {re.sub("_(bucket|sum|count)$", "", name) for name in queried.names | through_rules}
    assert set(catalogue.BY_NAME) <= displayed


def _names(expr: str) -> set[str]:
    labels = Labels(recorded().recorded)
    labels.of(parsed(expr))
    return labels.names


def test_the_provisioned_paths_match_the_mounts_of_compose():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    mounted = {}
    for service in ("prometheus", "grafana"):
        for volume in compose[service]["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                mounted[target] = ROOT / source
    provider = yaml.safe_load((ROOT / "deploy/grafana/dashboards/provider.yaml").read_text())
    (options,) = (entry["options"] for entry in provider["providers"])
    folder = mounted["/etc/grafana/provisioning"] / Path(options["path"]).relative_to(
        "/etc/grafana/provisioning"
    )
    assert folder == DASHBOARD.parent
    settings = yaml.safe_load(mounted["/etc/prometheus/prometheus.yml"].read_text())
    assert [mounted["/etc/prometheus/rules"] / Path(rule).name for rule in settings["rule_files"]] == [
        RULES / "*.yml"
    ]
    (job,) = settings["scrape_configs"]
    assert job["job_name"] == "tallystick"
    assert "/etc/prometheus/targets.yml" in mounted
    secrets = f"/etc/prometheus/{Path(job['authorization']['credentials_file']).parent}"
    assert f"prometheus-secrets:{secrets}:ro,nocopy" in compose["prometheus"]["volumes"]
