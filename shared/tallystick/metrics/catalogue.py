"""Every metric there is, once: its name, type, description and labels."""

from typing import Literal, NamedTuple

from tallystick.metrics.recorder import MICRO, SECONDS


class Metric(NamedTuple):
    """Args:
    labels: the names of its labels.
    per: how many of what is stored make one of what is shown.
    across: how the processes that report a gauge add up.
    values: the values of its only label, if they are a closed set. A counter shows each of them from the start, at 0:
        Prometheus sees no increase where a series begins.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    per: int = 1
    across: Literal["sum", "max"] = "sum"
    values: tuple[str, ...] = ()


# The original's names stay as its users know them, without a prefix or `_total`.
THREAD_STARTS = Metric("thread_starts", "counter", "Number of started threads")
THREAD_STOPS = Metric("thread_stops", "counter", "Number of stopped threads")
THREADS = Metric(
    "threads",
    "gauge",
    "Threads alive, by type, and whether they started in the last ten minutes",
    ("type", "recent"),
)
UNRESPONSIVE = Metric("unresponsive_workers", "gauge", "Threads alive whose heartbeats are late")
API_CALL = Metric(
    "api_call", "counter", "API requests answered by the edges", ("method", "statusCode", "route")
)
EVENTS = Metric("events", "counter", "Events counted, by type", ("event",))

HTTP_REQUESTS = Metric(
    "tallystick_http_requests_total",
    "counter",
    "Requests answered by the edges that were not for the API: health checks, scrapes, API reference, dashboard",
    ("handler", "method", "code"),
)
ACCOUNTS = Metric("tallystick_accounts", "gauge", "Accounts by the state last reported", ("state",))
ACCOUNTS_ADDED = Metric("tallystick_accounts_added_total", "counter", "Accounts added")
ACCOUNTS_DELETED = Metric("tallystick_accounts_deleted_total", "counter", "Accounts deleted")
THREADS_LOST = Metric(
    "tallystick_threads_lost_total",
    "counter",
    "Threads that stopped without reporting it: crashed, killed, or silent for too long",
)
UNMATCHED_STOPS = Metric(
    "tallystick_thread_unmatched_stops_total", "counter", "Stops of threads nobody saw starting"
)
DUPLICATES = Metric(
    "tallystick_event_duplicates_total", "counter", "Events delivered again and not counted again"
)
GAPS = Metric(
    "tallystick_event_gaps_total", "counter", "Events that their sources numbered and nobody received"
)
EVENTS_DROPPED = Metric(
    "tallystick_events_dropped_total", "counter", "Events a full buffer dropped while NATS was away"
)
DEAD_LETTERS = Metric("tallystick_dead_letters_total", "counter", "Messages that are no events, set aside")
SERIES_DROPPED = Metric(
    "tallystick_series_dropped_total", "counter", "Counts of unknown metrics, or of labels beyond the budget"
)

TOKENS = Metric(
    "tallystick_tokens", "gauge", "Tokens by state; each token is in exactly one", ("state",), across="max"
)
TOKENS_EXPIRING = Metric(
    "tallystick_tokens_expiring",
    "gauge",
    "Valid tokens without a successor that expire within so many days",
    ("days",),
    across="max",
)
TOKENS_EXPIRING_IN_USE = Metric(
    "tallystick_tokens_expiring_in_use",
    "gauge",
    "Those of tallystick_tokens_expiring that were made to live longer and were used in the last 30 days",
    ("days",),
    across="max",
)
TOKEN_CHECKS = Metric("tallystick_token_checks_total", "counter", "Requests judged, by result", ("result",))
REVOKED_TOKEN_USES = Metric(
    "tallystick_revoked_token_uses_total",
    "counter",
    "Requests that presented a token that was revoked, replaced by a rotation, or disabled",
    ("reason",),
    values=("disabled", "replaced", "revoked"),
)
REJECTIONS_NOT_AUDITED = Metric(
    "tallystick_rejections_not_audited_total",
    "counter",
    "Rejected administrative attempts beyond what the audit takes of one actor, or that could not be stored",
)
VERIFY_SECONDS = Metric(
    "tallystick_token_verify_seconds", "histogram", "Time an edge waited for the tokens service about a token"
)
PROPAGATION_SECONDS = Metric(
    "tallystick_revocation_propagation_seconds",
    "histogram",
    "Time from a revoke call until every edge refuses the token",
)
CACHED_TOKENS = Metric("tallystick_cached_tokens", "gauge", "Tokens in the edges' caches")
LEASES = Metric("tallystick_edges_with_lease", "gauge", "Edge workers that may rely on their caches")
EDGES = Metric("tallystick_edges", "gauge", "Edge workers that report")
QUOTA_HANDED_OUT = Metric(
    "tallystick_quota_handed_out_total", "counter", "Requests of rate limits handed out to edges"
)
QUOTA_RETURNED = Metric(
    "tallystick_quota_returned_total", "counter", "Requests of rate limits that edges gave back unspent"
)
QUOTA_LOST = Metric(
    "tallystick_quota_lost_total", "counter", "Requests handed out to edges that did not come in their window"
)
USES_DROPPED = Metric(
    "tallystick_token_uses_dropped_total", "counter", "Uses and refusals that could not be reported"
)
MEMORY = Metric(
    "tallystick_process_resident_memory_bytes",
    "gauge",
    "Resident memory of a service's processes",
    ("service",),
)
CPU = Metric(
    "tallystick_process_cpu_seconds_total",
    "counter",
    "Processor time of a service's processes",
    ("service",),
    per=MICRO,
)
LOOP_LAG = Metric(
    "tallystick_loop_lag_seconds",
    "gauge",
    "How late a service's event loops woke at their last heartbeat",
    ("service",),
    across="max",
)
STREAM_LAG = Metric(
    "tallystick_stream_lag_events", "gauge", "Events in the stream that are not counted yet", across="max"
)
COUNTING_REFUSED = Metric(
    "tallystick_counting_refused",
    "gauge",
    "1 while nothing is counted until an operator decides, since the stream is not the one counted so far",
)
STREAM_WRITABLE = Metric(
    "tallystick_stream_writable", "gauge", "0 while NATS answers and the event stream stores nothing, else 1"
)
RECOUNTED = Metric(
    "tallystick_recounted_messages_total", "counter", "Messages of the stream that were counted a second time"
)
RECOUNT_DIFFERENCE = Metric(
    "tallystick_recount_difference_events",
    "gauge",
    "By how much all counters together were off from the second count when it last caught up",
)
RECOUNT_TIME = Metric(
    "tallystick_recount_timestamp_seconds", "gauge", "When the second count last caught up, in Unix time"
)

BOUNDS = {*(f"{bound:g}" for bound in SECONDS), "+Inf"}
ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
BY_NAME = {metric.name: metric for metric in ALL}


def series(name: str, labels: dict[str, str]) -> Metric | None:
    """The metric that a reported series belongs to; None where there is none with these labels."""
    for suffix in ("_bucket", "_sum", "_count"):
        metric = BY_NAME.get(name.removesuffix(suffix))
        if name.endswith(suffix) and metric is not None and metric.type == "histogram":
            right = set(labels) == {"le"} and labels["le"] in BOUNDS if suffix == "_bucket" else not labels
            return metric if right else None
    metric = BY_NAME.get(name)
    if metric is None or set(labels) != set(metric.labels):
        return None
    return metric if not metric.values or set(labels.values()) <= set(metric.values) else None
