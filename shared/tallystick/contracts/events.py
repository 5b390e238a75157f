"""Events, which are counted."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tallystick.contracts.messages import Message, Time

EVENTS_STREAM = "TALLYSTICK_EVENTS"
EVENTS_PREFIX = "tallystick.events."
# The JetStream consumers of the metrics service: one counts the stream, the other counts it a second time.
STREAM_CONSUMER = "metrics"
RECONCILIATION_CONSUMER = "reconciliation"


class Event(Message, frozen=True, rename=None):
    """What happened, published on ``tallystick.events.<publisher>.<type>``.

    ``n`` rises by one per source and boot, so that duplicates of any age and gaps are detected. A bare event of a simple producer has no ``source``, ``boot`` and ``n``, and is counted once by its place in the stream. A
    ``source`` is its publisher's name, or begins with that name and a dot.
    """

    type: str = ""
    source: str | None = None
    boot: str | None = None
    n: int | None = None
    time: Time | None = None
    data: Mapping[str, Any] = msgspec.field(default_factory=dict)


class ThreadStarted(Message, frozen=True):
    thread: str
    type: str


class ThreadStopped(Message, frozen=True):
    """``unexpected``: it crashed or was killed, as its parent process reports."""

    thread: str
    unexpected: bool = False


class ThreadHeartbeat(Message, frozen=True):
    """All threads of one process at once."""

    threads: tuple[ThreadStarted, ...]


class TokenChanged(Message, frozen=True):
    """``token.created``, ``token.revoked``, ...: which token, never more."""

    id: str


class AccountAdded(Message, frozen=True):
    account: str


class AccountDeletedEvent(Message, frozen=True):
    account: str


class AccountState(Message, frozen=True):
    account: str
    state: str


class Counted(Message, frozen=True):
    """By how much a counter rose since it was last reported."""

    name: str
    value: Annotated[int, Meta(ge=0, le=2**40)]
    labels: dict[str, str] = {}


class Measured(Message, frozen=True):
    """What a gauge shows."""

    name: str
    value: float
    labels: dict[str, str] = {}


class MetricsReported(Message, frozen=True):
    """``metrics.reported``: what a process counted since its last report, and what its gauges show."""

    counters: tuple[Counted, ...] = ()
    gauges: tuple[Measured, ...] = ()


class ApiCall(Message, frozen=True):
    """``route``: its template, as in ``/v1/tokens/{token_id}``."""

    method: str
    status_code: Annotated[int, Meta(ge=0, le=999)]
    route: str
    count: Annotated[int, Meta(ge=0, le=2**40)]


class ApiCalls(Message, frozen=True):
    """``api.calls``: the requests an edge answered since its last report."""

    calls: tuple[ApiCall, ...]


EVENT_DATA: Mapping[str, type[Message]] = {
    "thread.started": ThreadStarted,
    "thread.stopped": ThreadStopped,
    "thread.heartbeat": ThreadHeartbeat,
    "token.*": TokenChanged,
    "account.added": AccountAdded,
    "account.deleted": AccountDeletedEvent,
    "account.state": AccountState,
    "metrics.reported": MetricsReported,
    "api.calls": ApiCalls,
}
"""The data of events, by type; ``*`` is any word. Events of other types may hold any data."""
