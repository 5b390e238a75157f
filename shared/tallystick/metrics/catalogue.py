"""Every metric there is, once: its name, type, description and labels."""

from dataclasses import dataclass
from typing import ClassVar, Literal

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of every histogram's buckets."""
MICRO = 1_000_000
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")
"""What the names of a histogram's series end in."""


@dataclass(frozen=True, eq=False)
class Metric:
    """``labels``: the names of its labels, in the order in which they are printed."""

    type: ClassVar[Literal["counter", "gauge", "histogram"]]

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Counter(Metric):
    """Args:
    per: the divisor from the stored integer to the exposed value.
    values: the values of its only label, if they are a closed set. A counter shows each of them from the start, at 0:
        Prometheus sees no increase where a series begins.
    """

    type = "counter"

    per: int = 1
    values: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Gauge(Metric):
    """``across``: how the values of the processes that report it add up."""

    type = "gauge"

    across: Literal["sum", "max"] = "sum"


@dataclass(frozen=True, eq=False)
class Histogram(Metric):
    """Of seconds, with the buckets of `SECONDS`. It is stored as counters."""

    type = "histogram"


# The original's names stay as its users know them, without a prefix or `_total`.
THREAD_STARTS = Counter("thread_starts", "Number of started threads")
THREAD_STOPS = Counter("thread_stops", "Number of stopped threads")
THREADS = Gauge(
    "threads",
    "Threads alive, by type, and whether they started in the last ten minutes",
    ("type", "recent"),
)
UNRESPONSIVE = Gauge("unresponsive_workers", "Threads alive whose heartbeats are late")
API_CALL = Counter("api_call", "API requests answered by the edges", ("method", "statusCode", "route"))
EVENTS = Counter("events", "Events counted, by type", ("event",))

HTTP_REQUESTS = Counter(
    "tallystick_http_requests_total",
    "Requests answered by the edges that were not for the API: health checks, scrapes, API reference, dashboard",
    ("handler", "method", "code"),
)
ACCOUNTS = Gauge("tallystick_accounts", "Accounts by the state last reported", ("state",))
ACCOUNTS_ADDED = Counter("tallystick_accounts_added_total", "Accounts added")
ACCOUNTS_DELETED = Counter("tallystick_accounts_deleted_total", "Accounts deleted")
THREADS_LOST = Counter(
    "tallystick_threads_lost_total",
    "Threads that stopped without reporting it: crashed, killed, or silent for too long",
)
UNMATCHED_STOPS = Counter("tallystick_thread_unmatched_stops_total", "Stops of threads without a start")
DUPLICATES = Counter("tallystick_event_duplicates_total", "Events delivered again and not counted again")
GAPS = Counter(
    "tallystick_event_gaps_total", "Events that their sources numbered and that never reached the stream"
)
EVENTS_DROPPED = Counter(
    "tallystick_events_dropped_total", "Events a full buffer dropped while NATS was away"
)
DEAD_LETTERS = Counter("tallystick_dead_letters_total", "Messages that are no events, set aside")
SERIES_DROPPED = Counter(
    "tallystick_series_dropped_total", "Counts of unknown metrics, or of labels beyond the budget"
)

TOKENS = Gauge("tallystick_tokens", "Tokens by state; each token is in exactly one", ("state",), across="max")
TOKENS_EXPIRING = Gauge(
    "tallystick_tokens_expiring",
    "Valid tokens without a successor that expire within so many days",
    ("days",),
    across="max",
)
TOKENS_EXPIRING_IN_USE = Gauge(
    "tallystick_tokens_expiring_in_use",
    "Those of tallystick_tokens_expiring that were made to live longer and were used in the last 30 days",
    ("days",),
    across="max",
)
TOKEN_CHECKS = Counter("tallystick_token_checks_total", "Authorization decisions, by result", ("result",))
REVOKED_TOKEN_USES = Counter(
    "tallystick_revoked_token_uses_total",
    "Requests that presented a token that was revoked, replaced by a rotation, or disabled",
    ("reason",),
    values=("disabled", "replaced", "revoked"),
)
REJECTIONS_NOT_AUDITED = Counter(
    "tallystick_rejections_not_audited_total",
    "Rejected administrative attempts beyond what the audit takes of one actor, or that could not be stored",
)
VERIFY_SECONDS = Histogram(
    "tallystick_token_verify_seconds", "Time an edge waited for the tokens service about a token"
)
PROPAGATION_SECONDS = Histogram(
    "tallystick_revocation_propagation_seconds",
    "Time from a revoke call until every edge rejects the token",
)
CACHED_TOKENS = Gauge("tallystick_cached_tokens", "Tokens in the edges' caches")
LEASES = Gauge("tallystick_edges_with_lease", "Edge workers that may rely on their caches")
EDGES = Gauge("tallystick_edges", "Edge workers that report")
QUOTA_HANDED_OUT = Counter("tallystick_quota_handed_out_total", "Requests of rate limits handed out to edges")
QUOTA_RETURNED = Counter(
    "tallystick_quota_returned_total", "Requests of rate limits that edges gave back unspent"
)
QUOTA_LOST = Counter(
    "tallystick_quota_lost_total", "Requests handed out to edges that did not come in their window"
)
USES_DROPPED = Counter(
    "tallystick_token_uses_dropped_total", "Uses and rejected requests that could not be reported"
)
MEMORY = Gauge(
    "tallystick_process_resident_memory_bytes",
    "Resident memory of a service's processes",
    ("service",),
)
CPU = Counter(
    "tallystick_process_cpu_seconds_total",
    "Processor time of a service's processes",
    ("service",),
    per=MICRO,
)
LOOP_LAG = Gauge(
    "tallystick_loop_lag_seconds",
    "How late a service's event loops woke at their last heartbeat",
    ("service",),
    across="max",
)
STREAM_LAG = Gauge(
    "tallystick_stream_lag_events", "Events in the stream that are not counted yet", across="max"
)
COUNTING_REFUSED = Gauge(
    "tallystick_counting_refused",
    "1 while nothing is counted until an operator decides, since the stream is not the one counted so far",
)
STREAM_WRITABLE = Gauge(
    "tallystick_stream_writable", "0 while NATS answers and the event stream stores nothing, else 1"
)
RECOUNTED = Counter(
    "tallystick_recounted_messages_total", "Messages of the stream that were counted a second time"
)
RECOUNT_DIFFERENCE = Gauge(
    "tallystick_recount_difference_events",
    "By how much all counters together were off from the second count when it last caught up",
)
RECOUNT_TIME = Gauge(
    "tallystick_recount_timestamp_seconds", "When the second count last caught up, in Unix time"
)

BOUNDS = {*(f"{bound:g}" for bound in SECONDS), "+Inf"}
ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
BY_NAME = {metric.name: metric for metric in ALL}
UNITS = {metric.name: metric.per for metric in ALL if isinstance(metric, Counter)} | {
    f"{metric.name}_sum": MICRO for metric in ALL if isinstance(metric, Histogram)
}
"""The divisors from stored integers to exposed values, by the name of the series; 1 for any other series."""


def series(name: str, labels: dict[str, str]) -> Metric | None:
    """The metric of a reported series; None if no metric has this name and these labels."""
    for suffix in HISTOGRAM_PARTS:
        metric = BY_NAME.get(name.removesuffix(suffix))
        if name.endswith(suffix) and isinstance(metric, Histogram):
            right = set(labels) == {"le"} and labels["le"] in BOUNDS if suffix == "_bucket" else not labels
            return metric if right else None
    metric = BY_NAME.get(name)
    if metric is None or set(labels) != set(metric.labels):
        return None
    if isinstance(metric, Counter) and metric.values and not set(labels.values()) <= set(metric.values):
        return None
    return metric
