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
        warn, alarm: thresholds from which a value is yellow and red.
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


def fleet_gauge(metric: str, labels: str = "") -> str:
    """A gauge of the fleet, independent of the edge that was scraped."""
    return f"max without (instance, pod) ({metric}{_selector(labels)})"


def rate_of(metric: str, labels: str = "") -> str:
    return f"max without (instance, pod) (rate({metric}{_selector(labels)}[$__rate_interval]))"


def increase_in_range(metric: str) -> str:
    """The increase of a counter over the time range of the dashboard."""
    return f"max without (instance, pod) (increase({metric}{JOB}[$__range]))"


def quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, {rate_of(f'{histogram}_bucket')})"


def _selector(labels: str) -> str:
    return f'{{job="tallystick",{labels}}}' if labels else JOB


def _stat(title: str, description: str, unit: str, expr: str, **options: Any) -> Panel:
    return Panel(title, description, unit, (Query(expr, title),), kind="stat", width=3, **options)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        _stat(
            "Alerts firing",
            "Firing alerts of deploy/prometheus/rules/alerts.yml. The runbook is docs/incidents.md.",
            "none",
            'count(ALERTS{alertstate="firing",alertname=~"Tallystick.+"}) or vector(0)',
            warn=1,
            alarm=3,
        ),
        _stat(
            "Edges without lease",
            "Edge workers that cannot serve from their cache: they look up the token of each request, or answer 503.",
            "none",
            "tallystick:edges_without_lease:max",
            alarm=1,
        ),
        _stat(
            "Checks",
            "Requests checked per second, accepted and rejected.",
            "reqps",
            "sum without (result) (tallystick:token_checks:rate5m)",
            decimals=1,
        ),
        _stat(
            "Rejected",
            "Ratio of checked requests that were rejected.",
            "percentunit",
            "tallystick:refusals:rate5m / sum without (result) (tallystick:token_checks:rate5m)",
            decimals=1,
        ),
        _stat(
            "503 responses",
            "Ratio of API requests that got a 503: the edge could not decide.",
            "percentunit",
            "tallystick:undecided:ratio_rate5m",
            decimals=2,
            warn=0.001,
            alarm=0.01,
        ),
        _stat(
            "Revocation p99",
            "Time from a revoke call until every edge rejects the token. No value if there were no recent revocations.",
            "s",
            "tallystick:revocation_propagation_seconds:p99_rate10m >= 0",
            warn=0.25,
            alarm=1,
        ),
        _stat(
            "Event backlog",
            "Events in the stream that are not counted yet.",
            "none",
            "tallystick:stream_lag_events:max",
            warn=1000,
            alarm=10000,
        ),
        _stat(
            "Accounts",
            "All accounts, in any state.",
            "none",
            f"sum without (state) ({fleet_gauge('tallystick_accounts')}) or vector(0)",
        ),
    ),
    "Checks and rejections": (
        Panel(
            "Checks by result",
            "Requests checked per second. ok is accepted; all other results are reasons of rejections.",
            "reqps",
            (Query("tallystick:token_checks:rate5m", "{{result}}"),),
            stacked=True,
        ),
        Panel(
            "Rejections by reason",
            "Rejected requests per second. invalid_token surges if somebody guesses tokens or a client uses an old one.",
            "reqps",
            (Query('tallystick:token_checks:rate5m{result!="ok"}', "{{result}}"),),
        ),
        Panel(
            "Uses of revoked tokens",
            "Requests per second that presented a token that was revoked, replaced by a rotation, or disabled.",
            "reqps",
            (Query(rate_of("tallystick_revoked_token_uses_total"), "{{reason}}"),),
        ),
        Panel(
            "Requests by status",
            "API requests per second, by HTTP status. 503 means that the edge could not decide.",
            "reqps",
            (Query("tallystick:api_call:rate5m", "{{statusCode}}"),),
            stacked=True,
        ),
        Panel(
            "Busiest routes",
            "The ten API routes with the most requests per second.",
            "reqps",
            (Query(f"topk(10, sum without (statusCode) ({rate_of('api_call')}))", "{{method}} {{route}}"),),
        ),
        Panel(
            "Other requests",
            "Requests per second for health checks, scrapes, API reference and dashboard, and those without a route.",
            "reqps",
            (
                Query(
                    f"sum without (method, code) ({rate_of('tallystick_http_requests_total')})",
                    "{{handler}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Token lookup latency",
            "Duration of token lookups at the tokens service after a cache miss.",
            "s",
            (
                Query(quantile(0.5, "tallystick_token_verify_seconds"), "p50"),
                Query("tallystick:token_verify_seconds:p99_rate5m", "p99"),
            ),
            alarm=0.25,
        ),
        Panel(
            "Token lookups",
            "Token lookups per second at the tokens service after a cache miss.",
            "reqps",
            (Query(rate_of("tallystick_token_verify_seconds_count"), "lookups"),),
        ),
    ),
    "Revocation and leases": (
        Panel(
            "Revocation latency",
            "Time from a revoke call until every edge rejects the token: milliseconds, or a lease if an edge died.",
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
            (Query(rate_of("tallystick_revocation_propagation_seconds_count"), "revoked"),),
        ),
        Panel(
            "Edges and leases",
            "Edge workers that report, and those with a lease, which serve from their cache.",
            "none",
            (
                Query(fleet_gauge("tallystick_edges"), "edges"),
                Query(fleet_gauge("tallystick_edges_with_lease"), "with a lease"),
            ),
        ),
        Panel(
            "Tokens by state",
            "All tokens, each in one state. expiring: valid, without a successor, expires within a week.",
            "none",
            (Query(fleet_gauge("tallystick_tokens"), "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Expiring tokens",
            "Valid tokens without a successor that expire within so many days, and those of them that are in use.",
            "none",
            (
                Query(fleet_gauge("tallystick_tokens_expiring"), "within {{days}} d"),
                Query(fleet_gauge("tallystick_tokens_expiring_in_use"), "in use, within {{days}} d"),
            ),
        ),
        Panel(
            "Cached tokens",
            "Total number of tokens in the caches of all edges.",
            "none",
            (Query(fleet_gauge("tallystick_cached_tokens"), "cached"),),
        ),
    ),
    "Rate limits": (
        Panel(
            "Quota",
            "Requests per second handed out to edges, returned by edges, and lost at the end of their window.",
            "reqps",
            (
                Query(rate_of("tallystick_quota_handed_out_total"), "handed out"),
                Query(rate_of("tallystick_quota_returned_total"), "returned"),
                Query(rate_of("tallystick_quota_lost_total"), "lost"),
            ),
        ),
        Panel(
            "Quota lost",
            "Ratio of handed-out quota that was not used. If it is high, requests are rejected below their limit.",
            "percentunit",
            (Query("tallystick:quota_lost:ratio_rate15m", "lost"),),
            alarm=0.1,
        ),
        Panel(
            "Rate limited",
            "Requests per second that got a 429.",
            "reqps",
            (Query('tallystick:api_call:rate5m{statusCode="429"} or vector(0)', "429"),),
        ),
    ),
    "Counting": (
        Panel(
            "Events by type",
            "Events counted per second.",
            "eps",
            (Query("tallystick:events:rate5m", "{{event}}"),),
            stacked=True,
        ),
        Panel(
            "Event backlog",
            "Events in the stream that are not counted yet. No line: no metrics service counts.",
            "none",
            (Query("tallystick:stream_lag_events:max", "backlog"),),
            alarm=10000,
        ),
        Panel(
            "Counting stopped",
            "Waiting: an operator has to decide about the stream. Not writable: the event stream stores no events.",
            "none",
            (
                Query(f"max(tallystick_counting_refused{JOB})", "waiting for a decision"),
                Query(f"1 - min(tallystick_stream_writable{JOB})", "not writable"),
            ),
            kind="stat",
            decimals=0,
            alarm=1,
        ),
        Panel(
            "Missing and dropped data",
            "In the selected time range: invalid messages, missing events, and dropped events, series and reports.",
            "none",
            (
                Query(increase_in_range("tallystick_dead_letters_total"), "dead letters"),
                Query(increase_in_range("tallystick_event_gaps_total"), "missing"),
                Query(increase_in_range("tallystick_events_dropped_total"), "dropped by producers"),
                Query(increase_in_range("tallystick_series_dropped_total"), "series dropped"),
                Query(increase_in_range("tallystick_token_uses_dropped_total"), "usage reports dropped"),
                Query(increase_in_range("tallystick_rejections_not_audited_total"), "attempts not audited"),
            ),
            kind="stat",
            decimals=0,
            warn=1,
        ),
        Panel(
            "Duplicate events",
            "Events per second that were delivered again and not counted again. Harmless, and expected after a crash.",
            "eps",
            (Query(rate_of("tallystick_event_duplicates_total"), "duplicates"),),
        ),
        Panel(
            "Reconciliation rate",
            "Messages per second that reconciliation has read. It is slow by design.",
            "cps",
            (Query(rate_of("tallystick_recounted_messages_total"), "recounted"),),
        ),
        Panel(
            "Reconciliation difference",
            "Total difference of all counters when reconciliation last caught up, and how long ago that was.",
            "none",
            (
                Query(fleet_gauge("tallystick_recount_difference_events"), "difference"),
                Query(f"time() - {fleet_gauge('tallystick_recount_timestamp_seconds')}", "seconds ago"),
            ),
            kind="stat",
            decimals=0,
        ),
    ),
    "Threads and accounts": (
        Panel(
            "Threads",
            "Running threads, by type. Processes of Tallystick are threads of their service's type.",
            "none",
            (Query("tallystick:threads:sum", "{{type}}"),),
            stacked=True,
        ),
        Panel(
            "Thread starts and stops",
            "Per second. Lost: crashed, killed or without heartbeats. Unmatched: stopped without a counted start.",
            "cps",
            (
                Query(rate_of("thread_starts"), "started"),
                Query(rate_of("thread_stops"), "stopped"),
                Query(rate_of("tallystick_threads_lost_total"), "lost"),
                Query(rate_of("tallystick_thread_unmatched_stops_total"), "unmatched"),
            ),
        ),
        Panel(
            "Unresponsive threads",
            "Running threads whose heartbeats are late.",
            "none",
            (Query(fleet_gauge("unresponsive_workers"), "late"),),
            alarm=1,
        ),
        Panel(
            "Accounts by state",
            "Accounts by the state that their service last reported.",
            "none",
            (Query(fleet_gauge("tallystick_accounts"), "{{state}}"),),
            stacked=True,
            width=12,
        ),
        Panel(
            "Accounts added and deleted",
            "Added and deleted accounts per second.",
            "cps",
            (
                Query(rate_of("tallystick_accounts_added_total"), "added"),
                Query(rate_of("tallystick_accounts_deleted_total"), "deleted"),
            ),
            width=12,
        ),
    ),
    "Processes": (
        Panel(
            "Memory",
            "Total resident memory of all processes, by service.",
            "bytes",
            (Query(fleet_gauge("tallystick_process_resident_memory_bytes"), "{{service}}"),),
        ),
        Panel(
            "Memory per process",
            "Average resident memory of a process, by service.",
            "bytes",
            (Query("tallystick:process_resident_memory_bytes:per_process", "{{service}}"),),
        ),
        Panel(
            "CPU usage",
            "CPU cores in use, by service.",
            "none",
            (Query(rate_of("tallystick_process_cpu_seconds_total"), "{{service}}"),),
            decimals=2,
        ),
        Panel(
            "Event loop lag",
            "Largest event loop lag, by service. Over some tens of milliseconds, the service is overloaded.",
            "s",
            (Query("tallystick:loop_lag_seconds:max", "{{service}}"),),
            alarm=0.25,
        ),
        Panel(
            "Scrape success",
            "1 if the last scrape succeeded, by edge or proxy.",
            "none",
            (Query(f"up{JOB}", "{{instance}}"),),
            decimals=0,
        ),
        Panel(
            "Scrape duration",
            "Duration of a scrape, by edge or proxy.",
            "s",
            (Query(f"scrape_duration_seconds{JOB}", "{{instance}}"),),
            alarm=5,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard in the format of Grafana 12 (classic JSON model)."""
    board = (
        build.Dashboard("Tallystick")
        .uid("tallystick")
        .description("Token checks, revocations, rate limits, event counting and processes.")
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
    # The SDK has no field for the title of Prometheus annotations.
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
        # A query over the whole range has a single value; all others are series.
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
