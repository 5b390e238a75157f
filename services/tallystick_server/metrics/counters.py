"""What a batch of events does to the counters. Pure: state in, state out, no clock and no database."""

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
"""More than anything that can be counted at once: a source that jumps further must not overflow a counter."""
MAX_GAUGE = 1e300
"""What a gauge may show: far enough below the largest float that the sum of all processes is one too."""
NEW_ACCOUNT_STATE = "init"


class Thread(NamedTuple):
    """Args:
    seen: when it was last heard of.
    ended: when it was reported as stopped, or counted as stopped because its heartbeats had ended.
    """

    type: str
    seen: datetime
    ended: datetime | None
    started: datetime | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether its end was reported. Silence may have been a pause, a report is final: a heartbeat that arrives after it
        was overtaken by it.
        """
        return self.ended is not None and self.ended == self.seen


@dataclass
class State:
    """What the database holds about everything a batch speaks of, to be changed by the batch."""

    sources: dict[tuple[str, str], int] = field(default_factory=dict)
    threads: dict[str, Thread] = field(default_factory=dict)
    accounts: dict[str, str | None] = field(default_factory=dict)
    counters: SeriesBudget = field(default_factory=SeriesBudget)
    gauges: SeriesBudget = field(default_factory=lambda: SeriesBudget(max_bytes=GAUGE_BYTES))
    bare_until: datetime | None = None
    """Up to when the stream stored unnumbered events that were counted before it was begun again."""


@dataclass
class Tally:
    """What a batch adds."""

    counters: Counter[tuple[str, Labels]] = field(default_factory=Counter)
    recent: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gauges: dict[tuple[str, str, str, Labels], float] = field(default_factory=dict)
    """By source, boot, name and labels."""

    def add(self, metric: Metric, number: int = 1) -> None:
        self.counters[metric.name, NO_LABELS] += number

    def add_series(self, state: State, name: str, labels: Mapping[str, str], number: int) -> bool:
        """Adds to one series of a metric with labels, unless that would be one too many."""
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
            # In the order of the stream, so that a second count spends the series budget on the same ones.
            state.counters.admits(catalogue.EVENTS.name, ordered({"event": event.type}))
        kinds[minute, event.type] += 1
        match data:
            case AccountState() | AccountAdded() | AccountDeletedEvent():
                _of_accounts(data, state, tally)
            case ThreadStarted() | ThreadStopped() | ThreadHeartbeat():
                _of_threads(data, at, state, tally)
            case ApiCalls():
                _called(data, at, state, tally)
            case MetricsReported():
                _reported(event, data, at, state, tally)
    for (minute, kind), number in kinds.items():
        if tally.add_series(state, catalogue.EVENTS.name, {"event": kind}, number):
            tally.recent[minute, f"events:{kind}"] += number


def _of_threads(
    data: ThreadStarted | ThreadStopped | ThreadHeartbeat, at: datetime, state: State, tally: Tally
) -> None:
    match data:
        case ThreadStarted():
            _started(data, at, state, tally)
        case ThreadStopped():
            _stopped(data, at, state, tally)
        case ThreadHeartbeat(threads=threads):
            for heartbeat in threads:
                _alive(heartbeat, at, state, tally)


def _of_accounts(data: AccountAdded | AccountDeletedEvent | AccountState, state: State, tally: Tally) -> None:
    match data:
        case AccountAdded(account=account):
            # Counted as often as announced; a state reported earlier is the newer knowledge.
            tally.add(catalogue.ACCOUNTS_ADDED)
            state.accounts[account] = state.accounts.get(account) or NEW_ACCOUNT_STATE
        case AccountDeletedEvent(account=account):
            tally.add(catalogue.ACCOUNTS_DELETED)
            state.accounts[account] = None
        case AccountState(account=account, state=reported):
            state.accounts[account] = reported


def _called(calls: ApiCalls, at: datetime, state: State, tally: Tally) -> None:
    for call in calls.calls:
        values = {"method": call.method, "statusCode": str(call.status_code), "route": call.route}
        tally.add_series(state, catalogue.API_CALL.name, values, call.count)
        minute = at.replace(second=0, microsecond=0)
        tally.recent[minute, f"apiCall:{'success' if call.status_code < 400 else 'fail'}"] += call.count


def _reported(event: Decoded, report: MetricsReported, at: datetime, state: State, tally: Tally) -> None:
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


def lose(thread: Thread, now: datetime, tally: Tally) -> Thread:
    """The heartbeats of a thread ended: it counts as stopped."""
    tally.add(catalogue.THREAD_STOPS)
    tally.add(catalogue.THREADS_LOST)
    return thread._replace(ended=now)


def _is_new(event: Decoded, state: State, tally: Tally) -> bool:
    if event.source is None or event.boot is None or event.n is None:
        # A bare event: the stream's sequence, which never repeats a batch, is its identity.
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


def _started(started: ThreadStarted, at: datetime, state: State, tally: Tally) -> None:
    known = state.threads.get(started.thread)
    if known is None or known.type == "":
        tally.add(catalogue.THREAD_STARTS)
        ended = known.ended if known else None
        # A stop that overtook its start has left a row: then it is over already.
        state.threads[started.thread] = Thread(started.type, ended or at, ended, at)


def _alive(heartbeat: ThreadStarted, at: datetime, state: State, tally: Tally) -> None:
    known = state.threads.get(heartbeat.thread)
    if known is not None and known.is_stopped:
        return
    if known is None or known.ended is not None:
        # Never seen, or believed dead: it runs, so starts minus stops must say so.
        tally.add(catalogue.THREAD_STARTS)
    state.threads[heartbeat.thread] = Thread(heartbeat.type, at, None, known.started if known else at)


def _stopped(stopped: ThreadStopped, at: datetime, state: State, tally: Tally) -> None:
    known = state.threads.get(stopped.thread)
    if known is not None and known.ended is not None:
        # Counted already: when its heartbeats ended, or by another report of the same end.
        state.threads[stopped.thread] = known._replace(seen=known.ended)
        return
    tally.add(catalogue.THREAD_STOPS)
    if stopped.unexpected:
        tally.add(catalogue.THREADS_LOST)
    if known is None:
        tally.add(catalogue.UNMATCHED_STOPS)
    state.threads[stopped.thread] = Thread(
        known.type if known else "", at, at, known.started if known else None
    )
