"""What the overview shows of missing, extreme and contradictory facts."""

import re

from tallystick.contracts.metrics import History
from tallystick_server.edge.dashboard.overview import MINUTES, Checks, Facts, _checks
from tallystick_server.edge.dashboard.pages import TEMPLATES

EXPOSITION = """\
# TYPE events counter
events{type="a"} 3
events{type="b"} 4
# TYPE tallystick_edges gauge
tallystick_edges 3
# TYPE tallystick_edges_with_lease gauge
tallystick_edges_with_lease 2
# TYPE tallystick_revocation_propagation_seconds histogram
tallystick_revocation_propagation_seconds_bucket{le="0.01"} 98
tallystick_revocation_propagation_seconds_bucket{le="0.1"} 99
tallystick_revocation_propagation_seconds_bucket{le="+Inf"} 100
tallystick_revocation_propagation_seconds_count 100
# TYPE threads gauge
threads{type="Edge"} 0
"""
SLOW = re.sub(r'(le="0\.\d+"}) \d+', r"\1 0", EXPOSITION)
UNUSED = re.sub(r"(propagation_seconds_.*) \d+", r"\1 0", EXPOSITION)
NO_CHECKS = Checks((0,) * MINUTES, (0,) * MINUTES, {})


def test_facts_are_summed_by_what_is_asked():
    facts = Facts(EXPOSITION)
    assert facts.value("events") == 7
    assert facts.value("events", type="b") == 4
    assert facts.value("nothing") == 0
    assert list(facts.by("events", "type").items()) == [("b", 4), ("a", 3)]
    assert facts.by("events", "service") == {}


def test_a_quantile_is_none_where_nothing_was_measured():
    quantiles = [
        Facts(text).quantile("tallystick_revocation_propagation_seconds", 0.99)
        for text in (EXPOSITION, SLOW, UNUSED, "")
    ]
    assert quantiles == [0.1, float("inf"), None, None]


def test_the_last_hour_has_only_what_happened():
    none, some = (0,) * MINUTES, (1,) * MINUTES
    assert _checks(History(counts={})) == Checks(none, [*none], {})
    history = History(counts={"checks:revoked": none, "checks:expired": some, "checks:ok": some})
    assert _checks(history) == Checks(some, [*some], {"expired": MINUTES})


def shown(exposition: str) -> dict[str, str]:
    """The facts of the page, by name, with their class."""
    page = TEMPLATES.engine_instance.get_template("overview/facts.html").render(
        facts=Facts(exposition), checks=NO_CHECKS, minutes=MINUTES
    )
    found = re.findall(r'<div class="fact ?(\w*)"><dt>([^<]+)</dt><dd>(.*?)</dd>', page)
    return {name: f"{kind} {re.sub('<[^>]+>', '', value)}".strip() for kind, name, value in found}


def test_the_overview_warns_and_claims_nothing_that_was_not_measured():
    assert shown(EXPOSITION)["Edges"] == "warn 3 2 with a lease"
    assert shown(EXPOSITION)["Revocation p99"] == "under 100 milliseconds"
    assert shown(SLOW)["Revocation p99"] == "–"
    assert shown(UNUSED)["Revocation p99"] == "– no data"
    assert shown(EXPOSITION.replace("lease 2", "lease 3"))["Edges"] == "3 all have a lease"
    assert shown("")["Event backlog"] == "0 events"
    assert shown("tallystick_stream_lag_events 10001")["Event backlog"] == "warn 10,001 events"
    assert shown("unresponsive_workers 1")["Threads"] == "warn 0 1 unresponsive"
