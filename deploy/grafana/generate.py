"""Grafana's dashboard of Tallystick: its panels by row, and the JSON that Grafana reads.

python deploy/grafana/generate.py > deploy/grafana/dashboards/tallystick.json
"""

import json
from typing import Any, Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard as build, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options, dashboard as models

JOB = '{job="tallystick"}'
WIDTH = 24  # columns of Grafana's grid
DATASOURCE = models.DataSourceRef("prometheus", "${datasource}")


class Query(NamedTuple):
    """``legend``: with labels as ``{{label}}``."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """Args:
    unit: one of Grafana's, such as ``s``, ``reqps``, ``percentunit``.
    warn, alarm: from where on a value is shown yellow and red.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    stacked: bool = False
    decimals: int | None = None
    warn: float | None = None
    alarm: float | None = None


def shown(metric: str, labels: str = "") -> str:
    """A gauge as the fleet shows it, whichever edge was scraped."""
    return f"max without (instance, pod) ({metric}{_selector(labels)})"


def per_second(metric: str, labels: str = "") -> str:
    return f"max without (instance, pod) (rate({metric}{_selector(labels)}[$__rate_interval]))"


def in_range(metric: str) -> str:
    """What a counter grew by in the time that is looked at."""
    return f"max without (instance, pod) (increase({metric}{JOB}[$__range]))"


def quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, {per_second(f'{histogram}_bucket')})"


def _selector(labels: str) -> str:
    return f'{{job="tallystick",{labels}}}' if labels else JOB


def _stat(title: str, description: str, unit: str, expr: str, **options: Any) -> Panel:
    return Panel(title, description, unit, (Query(expr, title),), kind="stat", width=3, **options)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        _stat(
            "Alerts firing",
            "How many of deploy/prometheus/rules/alerts.yml are firing. docs/incidents.md says what to do.",
            "none",
            'count(ALERTS{alertstate="firing",alertname=~"Tallystick.+"}) or vector(0)',
            warn=1,
            alarm=3,
        ),
        _stat(
            "Edges without lease",
            "Edge workers that may not rely on what they remember: they ask about each request, or answer 503.",
            "none",
            "tallystick:edges_without_lease:max",
            alarm=1,
        ),
        _stat(
            "Checks",
            "Requests judged per second, accepted and refused.",
            "reqps",
            "sum without (result) (tallystick:token_checks:rate5m)",
            decimals=1,
        ),
        _stat(
            "Refused",
            "The share of judged requests that was refused.",
            "percentunit",
            "tallystick:refusals:rate5m / sum without (result) (tallystick:token_checks:rate5m)",
            decimals=1,
        ),
        _stat(
            "Undecided",
            "The share of all API requests that got a 503: cannot decide now.",
            "percentunit",
            "tallystick:undecided:ratio_rate5m",
            decimals=2,
            warn=0.001,
            alarm=0.01,
        ),
        _stat(
            "Revocation, p99",
            "Time from a revoke call until every edge refuses the token. No value: nothing was revoked lately.",
            "s",
            "tallystick:revocation_propagation_seconds:p99_rate10m >= 0",
            warn=0.25,
            alarm=1,
        ),
        _stat(
            "Events waiting",
            "Events in the stream that are not counted yet.",
            "none",
            "tallystick:stream_lag_events:max",
            warn=1000,
            alarm=10000,
        ),
        _stat(
            "Accounts",
            "All accounts, whatever their state.",
            "none",
            f"sum without (state) ({shown('tallystick_accounts')}) or vector(0)",
        ),
    ),
    "Checks and refusals": (
        Panel(
            "Checks by result",
            "Requests judged per second. ok was let in; everything else was refused for the reason named.",
            "reqps",
            (Query("tallystick:token_checks:rate5m", "{{result}}"),),
            stacked=True,
        ),
        Panel(
            "Refusals by reason",
            "Refused requests per second. A surge of invalid_token is someone guessing, or a client with an old token.",
            "reqps",
            (Query('tallystick:token_checks:rate5m{result!="ok"}', "{{result}}"),),
        ),
        Panel(
            "Uses of ended tokens",
            "Requests per second that presented a token that was revoked, replaced by a rotation, or disabled.",
            "reqps",
            (Query(per_second("tallystick_revoked_token_uses_total"), "{{reason}}"),),
        ),
        Panel(
            "Requests by status",
            "API requests answered by the edges per second, by HTTP status. 503 means: cannot decide now.",
            "reqps",
            (Query("tallystick:api_call:rate5m", "{{statusCode}}"),),
            stacked=True,
        ),
        Panel(
            "Busiest routes",
            "The ten API routes with the most requests per second.",
            "reqps",
            (
                Query(
                    f"topk(10, sum without (statusCode) ({per_second('api_call')}))", "{{method}} {{route}}"
                ),
            ),
        ),
        Panel(
            "Other requests",
            "Health checks, scrapes, API reference and dashboard per second, and requests that led to no route.",
            "reqps",
            (
                Query(
                    f"sum without (method, code) ({per_second('tallystick_http_requests_total')})",
                    "{{handler}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Asking the tokens service",
            "How long edges waited for the tokens service about a token they did not know.",
            "s",
            (
                Query(quantile(0.5, "tallystick_token_verify_seconds"), "p50"),
                Query("tallystick:token_verify_seconds:p99_rate5m", "p99"),
            ),
            alarm=0.25,
        ),
        Panel(
            "Questions to the tokens service",
            "Tokens per second that an edge had to ask about, since it did not remember them.",
            "reqps",
            (Query(per_second("tallystick_token_verify_seconds_count"), "asked"),),
        ),
    ),
    "Revocation and leases": (
        Panel(
            "Revocation until refused everywhere",
            "Time from a revoke call until every edge refuses the token: milliseconds, or a lease where an edge died.",
            "s",
            (
                Query(quantile(0.5, "tallystick_revocation_propagation_seconds"), "p50"),
                Query("tallystick:revocation_propagation_seconds:p99_rate10m", "p99"),
            ),
            alarm=1,
        ),
        Panel(
            "Revocations",
            "Revoke calls per second.",
            "reqps",
            (Query(per_second("tallystick_revocation_propagation_seconds_count"), "revoked"),),
        ),
        Panel(
            "Edges and leases",
            "Edge workers that report, and those of them that may rely on what they remember.",
            "none",
            (
                Query(shown("tallystick_edges"), "edges"),
                Query(shown("tallystick_edges_with_lease"), "with a lease"),
            ),
        ),
        Panel(
            "Tokens by state",
            "All tokens, each in one state. expiring is valid, without a successor, and ends within a week.",
            "none",
            (Query(shown("tallystick_tokens"), "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Tokens that expire",
            "Valid tokens without a successor that expire within so many days, and those of them that are in use.",
            "none",
            (
                Query(shown("tallystick_tokens_expiring"), "within {{days}} d"),
                Query(shown("tallystick_tokens_expiring_in_use"), "in use, within {{days}} d"),
            ),
        ),
        Panel(
            "Remembered tokens",
            "Tokens in the caches of all edges together.",
            "none",
            (Query(shown("tallystick_cached_tokens"), "remembered"),),
        ),
    ),
    "Rate limits": (
        Panel(
            "Quota",
            "Requests per second handed out to edges, given back by them, and lost as their window ended.",
            "reqps",
            (
                Query(per_second("tallystick_quota_handed_out_total"), "handed out"),
                Query(per_second("tallystick_quota_returned_total"), "given back"),
                Query(per_second("tallystick_quota_lost_total"), "lost"),
            ),
        ),
        Panel(
            "Quota lost",
            "The share of handed out quota that was not used. Much of it means that clients are refused too early.",
            "percentunit",
            (Query("tallystick:quota_lost:ratio_rate15m", "lost"),),
            alarm=0.1,
        ),
        Panel(
            "Refused by a rate limit",
            "Requests per second that were answered 429.",
            "reqps",
            (Query('tallystick:api_call:rate5m{statusCode="429"} or vector(0)', "429"),),
        ),
    ),
    "Counting": (
        Panel(
            "Events by type",
            "Events counted per second, each once.",
            "eps",
            (Query("tallystick:events:rate5m", "{{event}}"),),
            stacked=True,
        ),
        Panel(
            "Events waiting",
            "Events in the stream that are not counted yet. No line at all: nobody counts.",
            "none",
            (Query("tallystick:stream_lag_events:max", "waiting"),),
            alarm=10000,
        ),
        Panel(
            "Counting stopped",
            "Refused: an operator has to decide about another stream. Unwritable: the event stream stores nothing.",
            "none",
            (
                Query(f"max(tallystick_counting_refused{JOB})", "refused"),
                Query(f"1 - min(tallystick_stream_writable{JOB})", "unwritable"),
            ),
            kind="stat",
            decimals=0,
            alarm=1,
        ),
        Panel(
            "Set aside, missing, dropped",
            "In the time looked at: messages that were no events, events nobody received, events and counts dropped.",
            "none",
            (
                Query(in_range("tallystick_dead_letters_total"), "dead letters"),
                Query(in_range("tallystick_event_gaps_total"), "missing"),
                Query(in_range("tallystick_events_dropped_total"), "dropped by producers"),
                Query(in_range("tallystick_series_dropped_total"), "counts left out"),
                Query(in_range("tallystick_token_uses_dropped_total"), "uses unreported"),
                Query(in_range("tallystick_rejections_not_audited_total"), "attempts not audited"),
            ),
            kind="stat",
            decimals=0,
            warn=1,
        ),
        Panel(
            "Delivered twice",
            "Events per second that came again and were not counted again: usual after a crash, and harmless.",
            "eps",
            (Query(per_second("tallystick_event_duplicates_total"), "again"),),
        ),
        Panel(
            "Counted a second time",
            "Messages per second that the second count has read. It is slow on purpose.",
            "cps",
            (Query(per_second("tallystick_recounted_messages_total"), "recounted"),),
        ),
        Panel(
            "Off from the second count",
            "By how much all counters together were off when the second count last caught up, and how long ago.",
            "none",
            (
                Query(shown("tallystick_recount_difference_events"), "difference"),
                Query(f"time() - {shown('tallystick_recount_timestamp_seconds')}", "seconds ago"),
            ),
            kind="stat",
            decimals=0,
        ),
    ),
    "Threads and accounts": (
        Panel(
            "Threads",
            "Threads alive, by type; processes of Tallystick are threads of their service's type.",
            "none",
            (Query("tallystick:threads:sum", "{{type}}"),),
            stacked=True,
        ),
        Panel(
            "Threads starting and stopping",
            "Per second. Lost: crashed, killed or silent. Unmatched: stopped without a counted start.",
            "cps",
            (
                Query(per_second("thread_starts"), "started"),
                Query(per_second("thread_stops"), "stopped"),
                Query(per_second("tallystick_threads_lost_total"), "lost"),
                Query(per_second("tallystick_thread_unmatched_stops_total"), "unmatched"),
            ),
        ),
        Panel(
            "Unresponsive",
            "Threads alive whose heartbeats are late.",
            "none",
            (Query(shown("unresponsive_workers"), "late"),),
            alarm=1,
        ),
        Panel(
            "Accounts by state",
            "Accounts by the state their service reported last.",
            "none",
            (Query(shown("tallystick_accounts"), "{{state}}"),),
            stacked=True,
            width=12,
        ),
        Panel(
            "Accounts added and deleted",
            "Per second.",
            "cps",
            (
                Query(per_second("tallystick_accounts_added_total"), "added"),
                Query(per_second("tallystick_accounts_deleted_total"), "deleted"),
            ),
            width=12,
        ),
    ),
    "Processes": (
        Panel(
            "Memory",
            "Resident memory of all processes of a service together.",
            "bytes",
            (Query(shown("tallystick_process_resident_memory_bytes"), "{{service}}"),),
        ),
        Panel(
            "Memory of a process",
            "The same, divided by how many processes of that service are alive.",
            "bytes",
            (Query("tallystick:process_resident_memory_bytes:per_process", "{{service}}"),),
        ),
        Panel(
            "Processor",
            "Cores in use, by service.",
            "none",
            (Query(per_second("tallystick_process_cpu_seconds_total"), "{{service}}"),),
            decimals=2,
        ),
        Panel(
            "Event loop lag",
            "How late the latest event loop of a service woke: over some tens of milliseconds it is out of breath.",
            "s",
            (Query("tallystick:loop_lag_seconds:max", "{{service}}"),),
            alarm=0.25,
        ),
        Panel(
            "Scraped",
            "Whether Prometheus was let in, by edge or proxy.",
            "none",
            (Query(f"up{JOB}", "{{instance}}"),),
            decimals=0,
        ),
        Panel(
            "Scrape duration",
            "How long an edge took to answer Prometheus.",
            "s",
            (Query(f"scrape_duration_seconds{JOB}", "{{instance}}"),),
            alarm=5,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """As Grafana 12 reads it (classic JSON model)."""
    board = (
        build.Dashboard("Tallystick")
        .uid("tallystick")
        .description("Access tokens checked at the edge, and what was counted.")
        .tags(["tallystick"])
        .version(1)
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(
            build.DatasourceVariable("datasource")
            .label("Prometheus")
            .type("prometheus")
            .current(models.VariableOption(selected=False, text="default", value="default"))
        )
        .annotation(
            build.AnnotationQuery()
            .name("Alerts")
            .datasource(DATASOURCE)
            .icon_color("red")
            .expr('ALERTS{alertstate="firing",alertname=~"Tallystick.+"}')
        )
    )
    number = 0
    for title, panels in ROWS.items():
        number += 1
        board.with_row(build.Row(title).id(number))
        height = 4 if all(panel.kind == "stat" for panel in panels) else 8
        for panel in panels:
            number += 1
            board.with_panel(_panel(panel).id(number).height(height).span(panel.width))
    document: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    # The SDK does not know how Prometheus titles annotations.
    document["annotations"]["list"][0]["titleFormat"] = "{{alertname}}"
    return document


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    builder = _stat_panel() if panel.kind == "stat" else _timeseries_panel(panel)
    builder.title(panel.title).description(panel.description).datasource(DATASOURCE)
    builder.unit(panel.unit).min(0).thresholds(_thresholds(panel))
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    for letter, query in enumerate(panel.queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + letter)).datasource(DATASOURCE)
        target.expr(query.expr).legend_format(query.legend)
        # The whole range has one answer; anything else is a line.
        builder.with_target(target.instant() if "$__range]" in query.expr else target.range())
    return builder


def _stat_panel() -> stat.Panel:
    return (
        stat.Panel()
        .color_scheme(build.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _timeseries_panel(panel: Panel) -> timeseries.Panel:
    stacking = options.StackingMode.NORMAL if panel.stacked else options.StackingMode.NONE
    thresholds = (
        options.GraphThresholdsStyleMode.OFF
        if panel.alarm is None
        else options.GraphThresholdsStyleMode.DASHED
    )
    return (
        timeseries.Panel()
        .color_scheme(build.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(options.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 5)
        .show_points(options.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(thresholds))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
    )


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = [models.Threshold(color="green")]
    if panel.warn is not None:
        steps.append(models.Threshold(panel.warn, "yellow"))
    if panel.alarm is not None:
        steps.append(models.Threshold(panel.alarm, "red"))
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
