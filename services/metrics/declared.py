"""Every metric there is, once: its name, type and description."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    name: str
    type: Literal["counter", "gauge"]
    help: str


# The original's names stay as its users know them, without a prefix or `_total`.
THREAD_STARTS = Metric("thread_starts", "counter", "Number of started threads")
THREAD_STOPS = Metric("thread_stops", "counter", "Number of stopped threads")

ACCOUNTS = Metric("tallystick_accounts", "gauge", "Accounts by the state last reported")
ACCOUNTS_ADDED = Metric("tallystick_accounts_added_total", "counter", "Accounts added")
ACCOUNTS_DELETED = Metric("tallystick_accounts_deleted_total", "counter", "Accounts deleted")
THREADS_ALIVE = Metric("tallystick_threads", "gauge", "Threads that started and did not end, by type")
THREADS_LOST = Metric(
    "tallystick_threads_lost_total", "counter", "Threads counted as stopped when their heartbeats ended"
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
DEAD_LETTERS = Metric("tallystick_dead_letters_total", "counter", "Messages that are no events, set aside")

ALL = (
    THREAD_STARTS,
    THREAD_STOPS,
    ACCOUNTS,
    ACCOUNTS_ADDED,
    ACCOUNTS_DELETED,
    THREADS_ALIVE,
    THREADS_LOST,
    UNMATCHED_STOPS,
    DUPLICATES,
    GAPS,
    DEAD_LETTERS,
)
