"""What the overview shows of missing, extreme and contradictory facts."""

import re

from tallystick.contracts.metrics import History, Sample
from tallystick_server.edge.dashboard.overview import MINUTES, Checks, Facts, _checks
from tallystick_server.edge.dashboard.pages import TEMPLATES

PROPAGATION = "tallystick_revocation_propagation_seconds"


def sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name=name, labels=labels, value=value)


def snapshot(*, edges: int = 3, fast: int = 99, all_measured: int = 100) -> list[Sample]:
    """Args:
    edges: how many report; two hold a lease.
    fast: how many revocations took up to 0.1 s.
    all_measured: how many were measured.
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


def test_facts_are_summed_by_what_is_asked():
    facts = Facts(snapshot())
    assert facts.value("events") == 7
    assert facts.value("events", type="b") == 4
    assert facts.value("nothing") == 0
    assert list(facts.by("events", "type").items()) == [("b", 4), ("a", 3)]
    assert facts.by("events", "service") == {}


def test_a_quantile_is_none_where_nothing_was_measured():
    quantiles = [Facts(samples).quantile(PROPAGATION, 0.99) for samples in (snapshot(), SLOW, UNUSED, [])]
    assert quantiles == [0.1, float("inf"), None, None]


def test_the_last_hour_has_only_what_happened():
    none, some = (0,) * MINUTES, (1,) * MINUTES
    assert _checks(History(counts={})) == Checks(none, [*none], {})
    history = History(counts={"checks:revoked": none, "checks:expired": some, "checks:ok": some})
    assert _checks(history) == Checks(some, [*some], {"expired": MINUTES})


def shown(samples: list[Sample]) -> dict[str, str]:
    """The facts of the page, by name, with their class."""
    page = TEMPLATES.engine_instance.get_template("overview/facts.html").render(
        facts=Facts(samples), checks=NO_CHECKS, minutes=MINUTES
    )
    found = re.findall(r'<div class="fact ?(\w*)"><dt>([^<]+)</dt><dd>(.*?)</dd>', page)
    return {name: f"{kind} {re.sub('<[^>]+>', '', value)}".strip() for kind, name, value in found}


def test_the_overview_warns_and_claims_nothing_that_was_not_measured():
    assert shown(snapshot())["Edges"] == "warn 3 2 with a lease"
    assert shown(snapshot())["Revocation p99"] == "under 100 milliseconds"
    assert shown(SLOW)["Revocation p99"] == "–"
    assert shown(UNUSED)["Revocation p99"] == "– no data"
    assert shown(snapshot(edges=2))["Edges"] == "2 all have a lease"
    assert shown([])["Event backlog"] == "0 events"
    assert shown([sample("tallystick_stream_lag_events", 10001)])["Event backlog"] == "warn 10,001 events"
    assert shown([sample("unresponsive_workers", 1)])["Threads"] == "warn 0 1 unresponsive"
