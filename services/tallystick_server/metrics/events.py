"""Decodes messages of the stream into events. Pure."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from tallystick.contracts import publishers
from tallystick.contracts.events import (
    EVENT_DATA,
    EVENTS_PREFIX,
    AccountAdded,
    AccountDeletedEvent,
    AccountState,
    ApiCalls,
    Event,
    MetricsReported,
    ThreadHeartbeat,
    ThreadStarted,
    ThreadStopped,
)
from tallystick.contracts.messages import Time
from tallystick.producer import is_event_type

T = TypeVar("T")
MAX_STATE = 64  # characters of an account's state


class Message(NamedTuple):
    """One message of the stream."""

    seq: int
    subject: str
    payload: bytes
    stored: datetime


class DeadLetter(NamedTuple):
    message: Message
    reason: str


class NotAnEvent(Exception):
    """The message is not an event. The text is the reason stored with its dead letter."""


class BatchKeys(NamedTuple):
    """The keys whose state a batch needs."""

    sources: set[tuple[str, str]]
    threads: set[str]
    accounts: set[str]


class Decoded(NamedTuple):
    """An event. Unnumbered events have no ``source``, ``boot`` and ``n``."""

    message: Message
    type: str
    source: str | None
    boot: str | None
    n: int | None
    data: object


class _Typed(Struct, Generic[T], frozen=True):
    """`tallystick.contracts.Event` with data of a known type, so that one pass decodes both."""

    data: T
    type: str = ""
    source: str | None = None
    boot: str | None = None
    n: int | None = None
    time: Time | None = None


_KNOWN: Mapping[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(_Typed[data])  # type: ignore[valid-type]  # a type that only the table knows
    for kind, data in EVENT_DATA.items()
}
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Event)
_PREFIX = len(EVENTS_PREFIX)


class _Subject(NamedTuple):
    """What an event's subject says.

    Args:
        publisher: who published it, as NATS permissions have it; None where the subject does not name one, as
            versions before had it. No user may publish such events any more.
        kind: the event's type.
        decoder: for its payload.
    """

    publisher: str | None
    kind: str
    decoder: msgspec.json.Decoder[Any]


@lru_cache(1024)
def _subject(words: str) -> _Subject:
    publisher, _, kind = words.partition(".")
    if "." not in kind:
        publisher, kind = "", words
    if not is_event_type(kind):
        raise NotAnEvent("the subject is not publisher.noun.verb")
    if publisher and not publishers.may_publish(publisher, kind):
        raise NotAnEvent(f"{kind} is reserved")
    return _Subject(publisher or None, kind, _KNOWN.get(kind, _ANY))


def decode(message: Message) -> Decoded:
    """Raises:
    NotAnEvent: it cannot be counted, now or ever.
    """
    publisher, kind, decoder = _subject(message.subject[_PREFIX:])
    try:
        event = decoder.decode(message.payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnEvent(str(error)) from None
    if event.type not in ("", kind):
        raise NotAnEvent("type and subject differ")
    source, boot, n, data = event.source, event.boot, event.n, event.data
    if (source is None) != (n is None) or (boot is None) != (n is None):
        raise NotAnEvent("source, boot and n go together")
    if n is not None:
        if not 0 < n < 2**62:
            raise NotAnEvent("n is not a positive number")
        _check(source)
        _check(boot)
        if publisher is not None and publishers.publisher(source) != publisher:
            raise NotAnEvent("the source is not its publisher's")
    for text in _names(data):
        _check(text)
    return Decoded(message, kind, source, boot, n, data)


def _check(text: str) -> None:
    if not 0 < len(text) <= 256 or "\0" in text:
        raise NotAnEvent("a name is empty, over 256 characters or holds a NUL")


def batch_keys(batch: list[Decoded]) -> BatchKeys:
    keys = BatchKeys(set(), set(), set())
    for event in batch:
        if event.source is not None and event.boot is not None:
            keys.sources.add((event.source, event.boot))
        match event.data:
            case AccountState() | AccountAdded() | AccountDeletedEvent():
                keys.accounts.add(event.data.account)
            case ThreadStarted() | ThreadStopped():
                keys.threads.add(event.data.thread)
            case ThreadHeartbeat():
                keys.threads.update(heartbeat.thread for heartbeat in event.data.threads)
    return keys


def _names(data: object) -> list[str]:
    match data:
        case AccountState():
            return [data.account, data.state if len(data.state) <= MAX_STATE else ""]
        case AccountAdded() | AccountDeletedEvent():
            return [data.account]
        case ThreadStarted(thread=thread, type=kind):
            return [thread, kind]
        case ThreadStopped(thread=thread):
            return [thread]
        case ThreadHeartbeat(threads=threads):
            return [key for heartbeat in threads for key in (heartbeat.thread, heartbeat.type)]
    return _report_keys(data)


def _report_keys(data: object) -> list[str]:
    match data:
        case ApiCalls(calls=calls):
            return [key for call in calls for key in (call.method, call.route)]
        case MetricsReported(counters=counters, gauges=gauges):
            named = [(counter.name, counter.labels) for counter in counters]
            named += [(gauge.name, gauge.labels) for gauge in gauges]
            return [key for name, values in named for key in (name, *values, *values.values())]
    return []
