"""Sends events so that each is counted once: numbered, buffered while NATS is unavailable, and resent in order with the
same number.

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
"""Maximum number of buffered events. Beyond it `Producer.send` drops events, and `Producer.put` waits."""
MAX_DATA_BYTES = 60 * 1024
"""Maximum size of an event's data. The stream rejects messages above 64 KiB, and one of these would block all others."""
MAX_TYPE = 200
"""Maximum length of an event's type, in characters."""
MAX_NAME = 128
"""Maximum length of a source and of a thread's type, in characters."""

FAILING_S = 5.0
"""The stream counts as failing after it stored nothing for this long while NATS answers. An election takes as long."""
STREAM_FULL = 10077
"""JetStream's error for a stream at its limit."""

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+", re.ASCII)


def is_event_type(text: str) -> bool:
    """Whether a text is ``noun.verb`` in lower case. It becomes part of a subject, so no other characters are allowed."""
    return len(text) <= MAX_TYPE and _TYPE.fullmatch(text) is not None


NOT_STORED: tuple[type[Exception], ...] = (NatsError, APIError, NoStreamResponseError, OSError, TimeoutError)
"""Raised if an event may not have been stored: send the same event again."""


async def publish(stream: JetStreamContext, event: Event) -> None:
    """Publishes a numbered event, and returns when the stream has stored it.

    Raises:
        NOT_STORED: it may not have been stored.
    """
    await stream.publish(
        publishers.subject(event.source or "", event.type),
        msgspec.json.encode(event),
        timeout=2,
        stream=EVENTS_STREAM,
        headers={"Nats-Msg-Id": f"{event.source}/{event.boot}/{event.n}"},
    )


class Producer:
    """A source of events: one process, from its start to its end (``boot``)."""

    def __init__(self, client: Client, source: str, buffer: int = BUFFER) -> None:
        if not (publishers.is_name(publishers.publisher(source)) and len(source) <= MAX_NAME):
            raise ValueError(f"not the name of a NATS user, or more than {MAX_NAME} characters: {source!r}")
        self._client = client
        self._stream = client.jetstream()
        self._denials = Denials(client)
        self._denied: set[str] = set()
        self.dropped = 0
        """Number of events that were dropped: the buffer was full, or NATS did not permit them."""
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
        """Called before each report, to add metrics that are counted elsewhere."""
        self._cpu_s = 0.0
        self._lag_s = 0.0

    def send(self, kind: str, data: msgspec.Struct | Mapping[str, Any]) -> None:
        """Buffers an event without waiting. If the buffer is full, the event is dropped and counted in ``dropped``; the
        metrics service counts the gap in the numbers.

        Args:
            kind: the event's type, ``noun.verb``.
            data: its content, at most MAX_DATA_BYTES as a JSON object.

        Raises:
            ValueError: ``kind`` is not of this form, or ``data`` is too large.
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
        """Like `send`, but waits while the buffer is full."""
        while len(self._buffer) >= self._limit:
            self._taken.clear()
            await self._taken.wait()
        self.send(kind, data)

    @asynccontextmanager
    async def thread(self, kind: str, supervised: str | None = None) -> AsyncIterator[None]:
        """Counts a thread as started, alive and stopped around the block.

        Args:
            kind: the thread's type.
            supervised: the thread's id, if a supervisor reports its start and end. Then only heartbeats are sent.

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
        """Publishes the buffered events one after the other: an event that is overtaken by a later number counts as a
        duplicate.
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
                        log.error(  # noqa: TRY400  # once, and the message says what happened
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
            self._failing_since = None  # NATS is unavailable, not the stream
        elif self._failing_since is None:
            self._failing_since = time.monotonic()
        self._is_full = isinstance(error, APIError) and error.err_code == STREAM_FULL

    @property
    def stream_health(self) -> StreamHealth:
        """Whether the stream stores the events of this producer, which sends heartbeats every HEARTBEAT_S."""
        if self._failing_since is None or time.monotonic() - self._failing_since < FAILING_S:
            return "writable"
        return "full" if self._is_full else "failing"

    def _drop(self) -> None:
        self.dropped += 1
        self.recorder.count(catalogue.EVENTS_DROPPED)

    async def send_heartbeats(self) -> None:
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
        """Sends the metrics recorded since the last report, if this source may publish them."""
        if not publishers.may_publish(publishers.publisher(self._source), "metrics.reported"):
            return
        for collect in self.before_report:
            collect()
        self.recorder.gauge(catalogue.LOOP_LAG, lambda: self._lag_s, service=self._source)
        self.recorder.gauge(catalogue.MEMORY, _resident_bytes, service=self._source)
        cpu = time.process_time()
        self.recorder.count(catalogue.CPU, int((cpu - self._cpu_s) * catalogue.CPU.per), service=self._source)
        self._cpu_s = cpu
        measured = self.recorder.take()
        for counters in _batches(measured.counters):
            self.send("metrics.reported", MetricsReported(counters=counters))
        for gauges in _batches(measured.gauges):
            self.send("metrics.reported", MetricsReported(gauges=gauges))

    async def drain(self) -> None:
        """Waits until the buffer is empty."""
        await self._emptied.wait()


def _batches(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Cuts items into batches that each fit one event."""
    return map(tuple, batches.cut(items, MAX_DATA_BYTES - 64))


def _resident_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def producer(client: Client, source: str, *, buffer: int = BUFFER) -> AsyncIterator[Producer]:
    """Runs a producer. At the end of the block it waits up to a second for the buffer to empty.

    Args:
        client: a connection of nats-py, preferably with unlimited reconnects and ``pending_size=0``.
        source: the name of the NATS user; a dot and a suffix may follow.
        buffer: the maximum number of buffered events.

    Raises:
        ValueError: the source is not of this form.
    """
    new_producer = Producer(client, source, buffer)
    tasks = [
        asyncio.create_task(new_producer.deliver()),
        asyncio.create_task(new_producer.send_heartbeats()),
    ]
    try:
        yield new_producer
    finally:
        new_producer.report()
        try:
            await asyncio.wait_for(new_producer.drain(), 1)
        except TimeoutError:
            log.warning("stopped with events that NATS did not store")
        for task in tasks:
            await cancel_and_wait(task)
