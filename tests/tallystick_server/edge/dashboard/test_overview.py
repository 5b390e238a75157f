"""The overview with missing, extreme and contradictory metrics."""

import re

from tallystick.contracts.metrics import History, Sample
from tallystick_server.edge.dashboard.overview import MINUTES, Checks, Facts, _checks
from tallystick_server.edge.dashboard.pages import TEMPLATES

PROPAGATION = "tallystick_revocation_propagation_seconds"


def sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name=name, labels=labels, value=value)


def snapshot(*, edges: int = 3, fast: int = 99, all_measured: int = 100) -> list[Sample]:
    """Args:
    edges: the number of edges that report; two hold a lease.
    fast: the number of revocations that took up to 0.1 s.
    all_measured: the number of revocations that were measured.
    """
    return [
        sample("events", 3, type="a"),
        sample("events", 4, type="b"),
        sample("tallystick_edges", edges),
        sample("tallystick_edges_with_lease", 2),
        sample(f"{PROPAGATION}_bucket", all_measured, le="+Inf"),
        sample(f"{PROPAGATION}_bucket", fast, le="0.1"),
        sample(f"{PROPAGATION}_bucket", min(fast, 98), le="0.01"),
        sample(f"{PROPAGATION}_count", all_measured),
        sample("threads", 0, type="Edge"),
    ]


SLOW = snapshot(fast=0)
UNUSED = snapshot(fast=0, all_measured=0)
NO_CHECKS = Checks((0,) * MINUTES, (0,) * MINUTES, {})


def test_facts_are_summed_over_the_labels_of_a_query():
    facts = Facts(snapshot())
    assert facts.value("events") == 7
    assert facts.value("events", type="b") == 4
    assert facts.value("nothing") == 0
    assert list(facts.by("events", "type").items()) == [("b", 4), ("a", 3)]
    assert facts.by("events", "service") == {}


def test_a_quantile_is_none_without_measurements():
    quantiles = [Facts(samples).quantile(PROPAGATION, 0.99) for samples in (snapshot(), SLOW, UNUSED, [])]
    assert quantiles == [0.1, float("inf"), None, None]


def test_the_last_hour_lists_only_reasons_that_occurred():
    none, some = (0,) * MINUTES, (1,) * MINUTES
    assert _checks(History(counts={})) == Checks(none, [*none], {})
    history = History(counts={"checks:revoked": none, "checks:expired": some, "checks:ok": some})
    assert _checks(history) == Checks(some, [*some], {"expired": MINUTES})


def displayed_facts(samples: list[Sample]) -> dict[str, str]:
    """The facts of the page, by name, with their class."""
    page = TEMPLATES.engine_instance.get_template("overview/facts.html").render(
        facts=Facts(samples), checks=NO_CHECKS, minutes=MINUTES
    )
    facts = re.findall(r'<div class="fact ?(\w*)"><dt>([^<]+)</dt><dd>(.*?)</dd>', page)
    return {name: f"{kind} {re.sub('<[^>]+>', '', value)}".strip() for kind, name, value in facts}


def test_the_overview_warns_and_shows_no_value_without_measurements():
    assert displayed_facts(snapshot())["Edges"] == "warn 3 2 with a lease"
    assert displayed_facts(snapshot())["Revocation p99"] == "under 100 milliseconds"
    assert displayed_facts(SLOW)["Revocation p99"] == "–"
    assert displayed_facts(UNUSED)["Revocation p99"] == "– no data"
    assert displayed_facts(snapshot(edges=2))["Edges"] == "2 all have a lease"
    assert displayed_facts([])["Event backlog"] == "0 events"
    assert (
        displayed_facts([sample("tallystick_stream_lag_events", 10001)])["Event backlog"]
        == "warn 10,001 events"
    )
    assert displayed_facts([sample("unresponsive_workers", 1)])["Threads"] == "warn 0 1 unresponsive"
