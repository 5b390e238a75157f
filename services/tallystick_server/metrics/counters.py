"""What a batch of events does to the counters. Pure: state in, state out, no clock and no database."""

from collections import Counter
from collections.abc import Iterable, Mapping
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
from tallystick_server.metrics.exposition import labels

MAX_SERIES = 1000
"""Series kept of one metric; what would be another is dropped, and counted."""
COUNTER_BYTES = 640_000
GAUGE_BYTES = 60_000
"""What the series of all metrics may take together where nothing in them can be compressed. `handlers` has the sum that
a NATS message has room for."""
LINE_BYTES = 40
"""What a series takes besides its labels: its number, and its name, which compression finds in the line before."""
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


class Series:
    """The labels there are, by metric, within a budget.

    Args:
        known: names and printed labels.
        budget: how many bytes they may take.
    """

    def __init__(self, known: Iterable[tuple[str, str]] = (), *, budget: int = COUNTER_BYTES) -> None:
        self._labels: dict[str, set[str]] = {}
        self._left = budget
        for name, printed in known:
            self._add(name, printed)

    def admits(self, name: str, printed: str) -> bool:
        """Whether this series is one of them, or became one."""
        known = self._labels.get(name, ())
        if printed in known:
            return True
        if len(known) >= MAX_SERIES or self._left < LINE_BYTES + len(printed.encode()):
            return False
        self._add(name, printed)
        return True

    def _add(self, name: str, printed: str) -> None:
        self._labels.setdefault(name, set()).add(printed)
        self._left -= LINE_BYTES + len(printed.encode())


@dataclass
class State:
    """What the database holds about everything a batch speaks of, to be changed by the batch."""

    sources: dict[tuple[str, str], int] = field(default_factory=dict)
    threads: dict[str, Thread] = field(default_factory=dict)
    accounts: dict[str, str | None] = field(default_factory=dict)
    counters: Series = field(default_factory=Series)
    gauges: Series = field(default_factory=lambda: Series(budget=GAUGE_BYTES))
    bare_until: datetime | None = None
    """Up to when the stream stored unnumbered events that were counted before it was begun again."""


@dataclass
class Tally:
    """What a batch adds."""

    counters: Counter[tuple[str, str]] = field(default_factory=Counter)
    recent: Counter[tuple[datetime, str]] = field(default_factory=Counter)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gauges: dict[tuple[str, str, str, str], float] = field(default_factory=dict)
    """By source, boot, name and labels."""

    def add(self, metric: Metric, number: int = 1) -> None:
        self.counters[metric.name, ""] += number

    def add_series(self, state: State, name: str, values: Mapping[str, str], number: int) -> bool:
        """Adds to one series of a metric with labels, unless that would be one too many."""
        printed = labels(values)
        if not state.counters.admits(name, printed):
            self.add(catalogue.SERIES_DROPPED, number)
            return False
        self.counters[name, printed] += number
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
            state.counters.admits(catalogue.EVENTS.name, labels({"event": event.type}))
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
            for touch_heartbeat_file in threads:
                _alive(touch_heartbeat_file, at, state, tally)


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
            tally.counters[counted.name, ""] += counted.value
    for measured in report.gauges:
        metric = catalogue.series(measured.name, measured.labels)
        printed = labels(measured.labels)
        known = isinstance(metric, Gauge) and abs(measured.value) <= MAX_GAUGE
        if known and state.gauges.admits(measured.name, printed):
            tally.gauges[event.source or "", event.boot or "", measured.name, printed] = measured.value
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


def _alive(touch_heartbeat_file: ThreadStarted, at: datetime, state: State, tally: Tally) -> None:
    known = state.threads.get(touch_heartbeat_file.thread)
    if known is not None and known.is_stopped:
        return
    if known is None or known.ended is not None:
        # Never seen, or believed dead: it runs, so starts minus stops must say so.
        tally.add(catalogue.THREAD_STARTS)
    state.threads[touch_heartbeat_file.thread] = Thread(
        touch_heartbeat_file.type, at, None, known.started if known else at
    )


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
