"""Sending events so that each is counted once: numbered, buffered while NATS is away, resent with the same
number, in order.

    async with events.producer(client, "mailer") as producer:
        async with producer.thread("worker"):
            producer.send("account.state", AccountState(account="alice", state="connected"))
"""

import asyncio
import logging
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from tallystick.connection import Denials, PublishDenied
from tallystick.contracts import publishers
from tallystick.contracts.events import (
    EVENTS_STREAM,
    Event,
    MetricsReported,
    ThreadHeartbeat,
    ThreadStarted,
    ThreadStopped,
)
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.rpc import batches
from tallystick.tasks import cancel_and_wait
from tallystick.tokens.ids import new_id

T = TypeVar("T")
StreamHealth = Literal["writable", "full", "failing"]
log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
BUFFER = 100_000
"""Events kept while NATS is away. Beyond it `Producer.send` drops, and `Producer.put` waits."""
MAX_DATA_BYTES = 60 * 1024
"""What an event may hold. The stream takes no message above 64 KiB, and one that it never takes would hold up all others."""
MAX_TYPE = 200
"""Characters of an event's type."""
MAX_NAME = 128
"""Characters of a source, and of a thread's type."""

FAILING_S = 5.0
"""The stream takes no events if it has taken none for this long while NATS answers: an election takes as long."""
STREAM_FULL = 10077
"""JetStream's error for a stream at its limit."""

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+", re.ASCII)


def is_event_type(text: str) -> bool:
    """``noun.verb`` in lower case: it becomes part of a subject, so nothing else may stand in it."""
    return len(text) <= MAX_TYPE and _TYPE.fullmatch(text) is not None


NOT_STORED: tuple[type[Exception], ...] = (NatsError, APIError, NoStreamResponseError, OSError, TimeoutError)
"""What publishing raises when the event may not have been stored: send the same event again."""


async def publish(stream: JetStreamContext, event: Event) -> None:
    """Publishes one event, which has a source, and returns when the stream has stored it.

    Raises:
        NOT_STORED: see there.
    """
    await stream.publish(
        publishers.subject(event.source or "", event.type),
        msgspec.json.encode(event),
        timeout=2,
        stream=EVENTS_STREAM,
        headers={"Nats-Msg-Id": f"{event.source}/{event.boot}/{event.n}"},
    )


class Producer:
    """One source of events: a process, from its start to its end (``boot``)."""

    def __init__(self, client: Client, source: str, buffer: int = BUFFER) -> None:
        if not (publishers.is_name(publishers.publisher(source)) and len(source) <= MAX_NAME):
            raise ValueError(f"not the name of a NATS user, or more than {MAX_NAME} characters: {source!r}")
        self._client = client
        self._stream = client.jetstream()
        self._denials = Denials(client)
        self._denied: set[str] = set()
        self.dropped = 0
        """Events that were not stored: the buffer was full, or NATS did not permit them."""
        self._limit = buffer
        self._source = source
        self._boot = new_id("boot_")
        self._n = 0
        self._buffer: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._taken = asyncio.Event()
        self._failing_since: float | None = None
        self._is_full = False
        self._threads: dict[str, ThreadStarted] = {}
        self.recorder = MetricsRecorder()
        self.before_report: list[Callable[[], None]] = []
        """Called before each report, to add what is counted elsewhere."""
        self._cpu_s = 0.0
        self._lag_s = 0.0

    def send(self, kind: str, data: msgspec.Struct | Mapping[str, Any]) -> None:
        """Takes an event without waiting. Where the buffer is full it is dropped; the gap in the numbers shows it,
        ``dropped``, and for Tallystick's own services ``tallystick_events_dropped_total``.

        Args:
            kind: ``noun.verb``.
            data: its content; becomes a JSON object of at most MAX_DATA_BYTES.

        Raises:
            ValueError: ``kind`` or ``data`` is not of that form.
        """
        if not is_event_type(kind):
            raise ValueError(f"not an event type: {kind!r}")
        content = msgspec.to_builtins(data)
        if len(msgspec.json.encode(content)) > MAX_DATA_BYTES:
            raise ValueError(f"more than {MAX_DATA_BYTES} bytes of data in one event: {kind}")
        self._n += 1
        if len(self._buffer) >= self._limit:
            self._drop()
            return
        self._buffer.append(
            Event(
                type=kind,
                source=self._source,
                boot=self._boot,
                n=self._n,
                time=datetime.now(UTC),
                data=content,
            )
        )
        self._emptied.clear()
        self._filled.set()

    async def put(self, kind: str, data: msgspec.Struct | Mapping[str, Any]) -> None:
        """As `send`, but where the buffer is full it waits for room."""
        while len(self._buffer) >= self._limit:
            self._taken.clear()
            await self._taken.wait()
        self.send(kind, data)

    @asynccontextmanager
    async def thread(self, kind: str, supervised: str | None = None) -> AsyncIterator[None]:
        """Counts a thread as started, alive and stopped around the block.

        Args:
            kind: the thread's type.
            supervised: the thread's id, if the supervisor of this process reports its start and its end; only its
                heartbeats are then sent from here.

        Raises:
            ValueError: ``kind`` is empty or too long.
        """
        if not 0 < len(kind) <= MAX_NAME:
            raise ValueError(f"a thread's type has 1 to {MAX_NAME} characters")
        started = ThreadStarted(thread=supervised or new_id("thr_"), type=kind)
        self._threads[started.thread] = started
        if supervised is None:
            self.send("thread.started", started)
        try:
            yield
        finally:
            del self._threads[started.thread]
            if supervised is None:
                self.send("thread.stopped", ThreadStopped(thread=started.thread))

    async def deliver(self) -> None:
        """Publishes what is in the buffer, one after the other: a later number overtaking an earlier one would
        make the earlier look like a duplicate.
        """
        while True:
            self._filled.clear()
            while self._buffer:
                event = self._buffer[0]
                subject = publishers.subject(self._source, event.type)
                try:
                    await self._denials.publish(subject, publish(self._stream, event))
                except PublishDenied:
                    self._drop()
                    if subject not in self._denied:
                        self._denied.add(subject)
                        log.error(  # noqa: TRY400  # said once, and what it means stands in it
                            "NATS does not permit this user to publish %s; such events are dropped", subject
                        )
                except NOT_STORED as error:
                    log.debug("event not stored yet: %s", type(error).__name__)
                    self._fail(error)
                    await asyncio.sleep(0.1)
                    continue
                self._failing_since = None
                self._buffer.popleft()
                self._taken.set()
            self._emptied.set()
            await self._filled.wait()

    def _fail(self, error: Exception) -> None:
        if not self._client.is_connected:
            self._failing_since = None  # not the stream: NATS is away
        elif self._failing_since is None:
            self._failing_since = time.monotonic()
        self._is_full = isinstance(error, APIError) and error.err_code == STREAM_FULL

    @property
    def stream_health(self) -> StreamHealth:
        """Whether the stream stores what this sends; a service sends heartbeats every HEARTBEAT_S."""
        if self._failing_since is None or time.monotonic() - self._failing_since < FAILING_S:
            return "writable"
        return "full" if self._is_full else "failing"

    def _drop(self) -> None:
        self.dropped += 1
        self.recorder.count(catalogue.EVENTS_DROPPED)

    async def touch_heartbeat_file(self) -> None:
        """Sends heartbeats and reports until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self._lag_s = loop.time() - due
            for threads in _batches(self._threads.values()):
                self.send("thread.heartbeat", ThreadHeartbeat(threads=threads))
            self.report()

    def report(self) -> None:
        """Sends what was measured since the last time, where that is for this source to publish."""
        if not publishers.may_publish(publishers.publisher(self._source), "metrics.reported"):
            return
        for add_measurements in self.before_report:
            add_measurements()
        self.recorder.gauge(catalogue.LOOP_LAG, lambda: self._lag_s, service=self._source)
        self.recorder.gauge(catalogue.MEMORY, _resident_bytes, service=self._source)
        cpu = time.process_time()
        self.recorder.count(catalogue.CPU, int((cpu - self._cpu_s) * catalogue.CPU.per), service=self._source)
        self._cpu_s = cpu
        measurements = self.recorder.take()
        for counters in _batches(measurements.counters):
            self.send("metrics.reported", MetricsReported(counters=counters))
        for gauges in _batches(measurements.gauges):
            self.send("metrics.reported", MetricsReported(gauges=gauges))

    async def drained(self) -> None:
        await self._emptied.wait()


def _batches(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """What fits one event each, with room for the names around it."""
    return map(tuple, batches.cut(items, MAX_DATA_BYTES - 64))


def _resident_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def producer(client: Client, source: str, *, buffer: int = BUFFER) -> AsyncIterator[Producer]:
    """A producer whose buffer is delivered in the background, and given up to a second to empty at the end.

    Args:
        client: a connection of nats-py, best one with endless reconnects and ``pending_size=0``.
        source: what sends: the name of the NATS user, which may be followed by a dot and more.
        buffer: how many events are kept while NATS is away.

    Raises:
        ValueError: the source is not of that form.
    """
    events_producer = Producer(client, source, buffer)
    tasks = [
        asyncio.create_task(events_producer.deliver()),
        asyncio.create_task(events_producer.touch_heartbeat_file()),
    ]
    try:
        yield events_producer
    finally:
        events_producer.report()
        try:
            await asyncio.wait_for(events_producer.drained(), 1)
        except TimeoutError:
            log.warning("stopping with events that NATS did not take")
        for task in tasks:
            await cancel_and_wait(task)
