"""Sending events so that each is counted once: numbered, buffered while NATS is away, resent with the same
number, in order.

    async with events.producer(client, "my-service") as producer:
        async with producer.thread("worker"):
            producer.send("account.added", AccountAdded(account="alice"))
"""

import asyncio
import logging
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from shared.contracts import (
    EVENTS_PREFIX,
    EVENTS_STREAM,
    Event,
    ThreadHeartbeat,
    ThreadStarted,
    ThreadStopped,
)
from shared.ids import new_id
from shared.lifecycle import ended_by_cancelling
from shared.measures import MICRO, Measures

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
BUFFER = 100_000
"""Events kept while NATS is away. Beyond it new ones are dropped, and the gap in their numbers shows it."""

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+", re.ASCII)


def is_event_type(text: str) -> bool:
    """``noun.verb`` in lower case: it becomes part of a subject, so nothing else may stand in it."""
    return _TYPE.fullmatch(text) is not None


NOT_STORED: tuple[type[Exception], ...] = (NatsError, APIError, NoStreamResponseError, OSError, TimeoutError)
"""What publishing raises when the event may not have been stored: send the same event again."""


async def publish(stream: JetStreamContext, event: Event) -> None:
    """Publishes one event and returns when the stream has stored it.

    Raises:
        NOT_STORED: see there.
    """
    await stream.publish(
        EVENTS_PREFIX + event.type,
        msgspec.json.encode(event),
        timeout=2,
        stream=EVENTS_STREAM,
        headers={"Nats-Msg-Id": f"{event.source}/{event.boot}/{event.n}"},
    )


class Producer:
    """One source of events: a process, from its start to its end (``boot``)."""

    def __init__(self, client: Client, source: str) -> None:
        self._stream = client.jetstream()
        self._source = source
        self._boot = new_id("boot_")
        self._n = 0
        self._buffer: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._threads: dict[str, ThreadStarted] = {}
        self.measures = Measures()
        self.before_report: list[Callable[[], None]] = []
        """Called before each report, to add what is counted elsewhere."""
        self._cpu_s = 0.0
        self._lag_s = 0.0

    def send(self, kind: str, data: msgspec.Struct) -> None:
        """Takes an event without waiting.

        Args:
            kind: ``noun.verb``.
            data: its content; becomes a JSON object.

        Raises:
            ValueError: ``kind`` is not of that form.
        """
        if not is_event_type(kind):
            raise ValueError(f"not an event type: {kind!r}")
        self._n += 1
        if len(self._buffer) >= BUFFER:
            self.measures.count("tallystick_events_dropped_total")
            return
        self._buffer.append(
            Event(
                type=kind,
                source=self._source,
                boot=self._boot,
                n=self._n,
                time=datetime.now(UTC),
                data=msgspec.to_builtins(data),
            )
        )
        self._emptied.clear()
        self._filled.set()

    @asynccontextmanager
    async def thread(self, kind: str) -> AsyncIterator[None]:
        """Counts a thread as started, alive and stopped around the block."""
        started = ThreadStarted(thread=new_id("thr_"), type=kind)
        self._threads[started.thread] = started
        self.send("thread.started", started)
        try:
            yield
        finally:
            del self._threads[started.thread]
            self.send("thread.stopped", ThreadStopped(thread=started.thread))

    async def deliver(self) -> None:
        """Publishes what is in the buffer, one after the other: a later number overtaking an earlier one would
        make the earlier look like a duplicate.
        """
        while True:
            self._filled.clear()
            while self._buffer:
                try:
                    await publish(self._stream, self._buffer[0])
                except NOT_STORED as error:
                    log.debug("event not stored yet: %s", type(error).__name__)
                    await asyncio.sleep(0.1)
                else:
                    self._buffer.popleft()
            self._emptied.set()
            await self._filled.wait()

    async def beat(self) -> None:
        """Sends heartbeats and reports until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self._lag_s = loop.time() - due
            if self._threads:
                self.send("thread.heartbeat", ThreadHeartbeat(threads=tuple(self._threads.values())))
            self.report()

    def report(self) -> None:
        """Sends what was measured since the last time."""
        for of in self.before_report:
            of()
        self.measures.gauge("tallystick_loop_lag_seconds", lambda: self._lag_s, service=self._source)
        self.measures.gauge("tallystick_process_resident_memory_bytes", _resident_bytes, service=self._source)
        cpu = time.process_time()
        self.measures.count(
            "tallystick_process_cpu_seconds_total", int((cpu - self._cpu_s) * MICRO), service=self._source
        )
        self._cpu_s = cpu
        self.send("metrics.reported", self.measures.take())

    async def drained(self) -> None:
        await self._emptied.wait()


def _resident_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def producer(client: Client, source: str) -> AsyncIterator[Producer]:
    """A producer whose buffer is delivered in the background, and given up to a second to empty at the end."""
    made = Producer(client, source)
    tasks = [asyncio.create_task(made.deliver()), asyncio.create_task(made.beat())]
    try:
        yield made
    finally:
        made.report()
        try:
            await asyncio.wait_for(made.drained(), 1)
        except TimeoutError:
            log.warning("stopping with events that NATS did not take")
        for task in tasks:
            await ended_by_cancelling(task)
