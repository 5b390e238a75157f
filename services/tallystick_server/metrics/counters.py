"""Applies a batch of events to the counters. Pure: neither clock nor database."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tallystick.contracts.events import (
    AccountAdded,
    AccountDeletedEvent,
    AccountState,
    ApiCalls,
    MetricsReported,
    ThreadHeartbeat,
    ThreadStarted,
    ThreadStopped,
)
from tallystick.metrics import catalogue
from tallystick.metrics.catalogue import Gauge, Metric
from tallystick_server.metrics.events import DeadLetter, Decoded
from tallystick_server.metrics.series import (
    GAUGE_BYTES,
    MAX_KEY_BYTES,
    NO_LABELS,
    Labels,
    SeriesBudget,
    label_bytes,
    ordered,
)

MAX_GAP = 1 << 40
"""Maximum gap that is counted. A larger jump of a source must not overflow a counter."""
MAX_GAUGE = 1e300
"""Maximum value of a gauge. The sum over all processes stays below the largest float."""
NEW_ACCOUNT_STATE = "init"


class Thread(NamedTuple):
    """Args:
    seen: when it last started, stopped or sent a heartbeat.
    ended: when it stopped: as reported, or when its heartbeats were missed.
    """

    type: str
    seen: datetime
    ended: datetime | None
    started: datetime | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether its end was reported. Missed heartbeats may be a pause; a report is final, and a heartbeat that arrives
        after it was sent before it.
        """
        return self.ended is not None and self.ended == self.seen


@dataclass
class State:
    """The stored state of everything that a batch changes."""

    sources: dict[tuple[str, str], int] = field(default_factory=dict)
    threads: dict[str, Thread] = field(default_factory=dict)
    accounts: dict[str, str | None] = field(default_factory=dict)
    counters: SeriesBudget = field(default_factory=SeriesBudget)
    gauges: SeriesBudget = field(default_factory=lambda: SeriesBudget(max_bytes=GAUGE_BYTES))
    bare_until: datetime | None = None
    """Unnumbered events that the stream stored up to then were counted before counting restarted."""


@dataclass
class Tally:
    """The changes of a batch."""

    counters: Counter[tuple[str, Labels]] = field(default_factory=Counter)
    recent: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gauges: dict[tuple[str, str, str, Labels], float] = field(default_factory=dict)
    """By source, boot, metric name and labels."""

    def add(self, metric: Metric, number: int = 1) -> None:
        self.counters[metric.name, NO_LABELS] += number

    def add_series(self, state: State, name: str, labels: Mapping[str, str], number: int) -> bool:
        """Adds to a labelled series, if it is within the budget. Otherwise counts it as dropped."""
        key = ordered(labels)
        if not state.counters.admits(name, key):
            self.add(catalogue.SERIES_DROPPED, number)
            return False
        self.counters[name, key] += number
        return True


def apply(batch: list[Decoded], state: State, tally: Tally) -> None:
    """Counts each event of the batch once, changing ``state`` and ``tally``."""
    kinds: Counter[tuple[datetime, str]] = Counter()
    for event in batch:
        if not _is_new(event, state, tally):
            continue
        at, data = event.message.stored, event.data
        minute = at.replace(second=0, microsecond=0)
        if (minute, event.type) not in kinds:
            # In the order of the stream, so that reconciliation admits the same series.
            state.counters.admits(catalogue.EVENTS.name, ordered({"event": event.type}))
        kinds[minute, event.type] += 1
        match data:
            case AccountState() | AccountAdded() | AccountDeletedEvent():
                _apply_account_event(data, state, tally)
            case ThreadStarted() | ThreadStopped() | ThreadHeartbeat():
                _apply_thread_event(data, at, state, tally)
            case ApiCalls():
                _apply_api_calls(data, at, state, tally)
            case MetricsReported():
                _apply_report(event, data, at, state, tally)
    for (minute, kind), number in kinds.items():
        if tally.add_series(state, catalogue.EVENTS.name, {"event": kind}, number):
            tally.recent[minute, f"events:{kind}"] += number


def _apply_thread_event(
    data: ThreadStarted | ThreadStopped | ThreadHeartbeat, at: datetime, state: State, tally: Tally
) -> None:
    match data:
        case ThreadStarted():
            _apply_start(data, at, state, tally)
        case ThreadStopped():
            _apply_stop(data, at, state, tally)
        case ThreadHeartbeat(threads=threads):
            for heartbeat in threads:
                _apply_heartbeat(heartbeat, at, state, tally)


def _apply_account_event(
    data: AccountAdded | AccountDeletedEvent | AccountState, state: State, tally: Tally
) -> None:
    match data:
        case AccountAdded(account=account):
            # A state that is already stored was reported after the account was added.
            tally.add(catalogue.ACCOUNTS_ADDED)
            state.accounts[account] = state.accounts.get(account) or NEW_ACCOUNT_STATE
        case AccountDeletedEvent(account=account):
            tally.add(catalogue.ACCOUNTS_DELETED)
            state.accounts[account] = None
        case AccountState(account=account, state=reported):
            state.accounts[account] = reported


def _apply_api_calls(calls: ApiCalls, at: datetime, state: State, tally: Tally) -> None:
    for call in calls.calls:
        values = {"method": call.method, "statusCode": str(call.status_code), "route": call.route}
        tally.add_series(state, catalogue.API_CALL.name, values, call.count)
        minute = at.replace(second=0, microsecond=0)
        tally.recent[minute, f"apiCall:{'success' if call.status_code < 400 else 'fail'}"] += call.count


def _apply_report(event: Decoded, report: MetricsReported, at: datetime, state: State, tally: Tally) -> None:
    for counted in report.counters:
        metric = catalogue.series(counted.name, counted.labels)
        if metric is None or isinstance(metric, Gauge):
            tally.add(catalogue.SERIES_DROPPED, counted.value)
        elif counted.labels:
            added = tally.add_series(state, counted.name, counted.labels, counted.value)
            if added and metric is catalogue.TOKEN_CHECKS:
                minute = at.replace(second=0, microsecond=0)
                tally.recent[minute, f"checks:{counted.labels['result']}"] += counted.value
        else:
            tally.counters[counted.name, NO_LABELS] += counted.value
    source, boot = event.source or "", event.boot or ""
    for measured in report.gauges:
        labels = ordered(measured.labels)
        if (
            isinstance(catalogue.series(measured.name, measured.labels), Gauge)
            and abs(measured.value) <= MAX_GAUGE
            and len(f"{source}{boot}".encode()) + label_bytes(labels) <= MAX_KEY_BYTES
            and state.gauges.admits(measured.name, labels)
        ):
            tally.gauges[source, boot, measured.name, labels] = measured.value
        else:
            tally.add(catalogue.SERIES_DROPPED)


def mark_lost(thread: Thread, now: datetime, tally: Tally) -> Thread:
    """Counts a thread as stopped because its heartbeats were missed."""
    tally.add(catalogue.THREAD_STOPS)
    tally.add(catalogue.THREADS_LOST)
    return thread._replace(ended=now)


def _is_new(event: Decoded, state: State, tally: Tally) -> bool:
    if event.source is None or event.boot is None or event.n is None:
        # An unnumbered event is identified by its sequence in the stream, which no batch repeats.
        if state.bare_until is not None and event.message.stored <= state.bare_until:
            tally.add(catalogue.DUPLICATES)
            return False
        return True
    last = state.sources.get((event.source, event.boot), 0)
    if event.n <= last:
        tally.add(catalogue.DUPLICATES)
        return False
    if event.n > last + 1:
        tally.add(catalogue.GAPS, min(event.n - last - 1, MAX_GAP))
    state.sources[event.source, event.boot] = event.n
    return True


def _apply_start(started: ThreadStarted, at: datetime, state: State, tally: Tally) -> None:
    thread = state.threads.get(started.thread)
    if thread is None or thread.type == "":
        tally.add(catalogue.THREAD_STARTS)
        ended = thread.ended if thread else None
        # A stop that arrived before its start has left a row.
        state.threads[started.thread] = Thread(started.type, ended or at, ended, at)


def _apply_heartbeat(heartbeat: ThreadStarted, at: datetime, state: State, tally: Tally) -> None:
    thread = state.threads.get(heartbeat.thread)
    if thread is not None and thread.is_stopped:
        return
    if thread is None or thread.ended is not None:
        # Unknown, or counted as stopped: it runs, so it counts as started.
        tally.add(catalogue.THREAD_STARTS)
    state.threads[heartbeat.thread] = Thread(heartbeat.type, at, None, thread.started if thread else at)


def _apply_stop(stopped: ThreadStopped, at: datetime, state: State, tally: Tally) -> None:
    thread = state.threads.get(stopped.thread)
    if thread is not None and thread.ended is not None:
        # Counted already: when its heartbeats were missed, or by another report.
        state.threads[stopped.thread] = thread._replace(seen=thread.ended)
        return
    tally.add(catalogue.THREAD_STOPS)
    if stopped.unexpected:
        tally.add(catalogue.THREADS_LOST)
    if thread is None:
        tally.add(catalogue.UNMATCHED_STOPS)
    state.threads[stopped.thread] = Thread(
        thread.type if thread else "", at, at, thread.started if thread else None
    )
