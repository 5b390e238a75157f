"""Reads the stream in order and counts it: position, marks, counters and dead letters in one transaction, and
only then an acknowledgement.
"""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    StorageType,
    StreamConfig,
    StreamState,
)
from nats.js.errors import APIError, NotFoundError

from tallystick.contracts.events import EVENTS_PREFIX, EVENTS_STREAM, STREAM_CONSUMER
from tallystick.errors import Unavailable
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.producer import HEARTBEAT_S
from tallystick_server.metrics.continuity import ObservedStream, Position, discontinuity
from tallystick_server.metrics.counters import Tally, apply, mark_lost
from tallystick_server.metrics.events import BatchKeys, DeadLetter, Message, NotAnEvent, batch_keys, decode
from tallystick_server.metrics.pull_consumer import (
    LINGER_S,
    NOT_NOW,
    Delivered,
    Delivery,
    Interrupted,
    delivery,
)
from tallystick_server.metrics.series import SeriesBudget
from tallystick_server.metrics.silence import Heartbeats, Watch
from tallystick_server.metrics.store import counts, positions, recounts
from tallystick_server.metrics.store.positions import NotTheOwner
from tallystick_server.runtime.postgres import Pool
from tallystick_server.runtime.settings import SettingsError, variable

log = logging.getLogger(__name__)

BATCH = 2000
HOUSEKEEPING_S = 1.0
POLL_S = 0.5
"""How often a standby checks the owner's lease."""
LEASE_S = 4.0
"""After this long without a write of the owner, another process takes over."""
NEARLY_FULL = 0.9
"""Share of its limit from which the stream drops messages that reconciliation has not read. Uncounted ones always stay."""
INSUFFICIENT_STORAGE = 10047
"""JetStream's error for a stream that is larger than the server allows."""
SILENCE_S = 6 * HEARTBEAT_S
"""A thread without a heartbeat for this long counts as stopped."""


class CountingHalted(Exception):
    """Counting halts until an operator decides: continuing would count events twice or skip some."""


async def ensure_stream(client: Client, *, max_bytes: int, replicas: int = 1, wait_s: float = 10) -> None:
    """Creates the stream, or updates its limits and number of replicas. A full stream rejects new events instead of
    dropping acknowledged ones.

    Raises:
        SettingsError: NATS allows no stream of this size.
        Unavailable: JetStream did not answer within ``wait_s``, for example because its nodes have no leader yet.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await _ensure_stream(client.jetstream(timeout=2), max_bytes, replicas)
        except (NatsError, APIError) as error:
            if isinstance(error, APIError) and error.err_code == INSUFFICIENT_STORAGE:
                raise SettingsError(
                    f"{variable('stream_max_bytes')} is more than NATS has for it: see max_file of its JetStream"
                ) from None
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"JetStream did not create the stream within {wait_s:g} s: {error}"
                ) from None
            await asyncio.sleep(0.2)


async def _ensure_stream(stream: JetStreamContext, max_bytes: int, replicas: int) -> None:
    new = StreamConfig(name=EVENTS_STREAM, storage=StorageType.FILE)
    try:
        existing = (await stream.stream_info(EVENTS_STREAM)).config
    except NotFoundError:
        existing = None
    config = (existing or new).evolve(
        subjects=[EVENTS_PREFIX + ">"],
        discard=DiscardPolicy.NEW,
        max_age=8 * 24 * 3600,
        max_bytes=max_bytes,
        max_msg_size=64 * 1024,
        num_replicas=replicas,
    )
    if existing is None:
        await stream.add_stream(config)
    elif config != existing:
        await stream.update_stream(config)


class Stream(NamedTuple):
    """The messages of the stream. ``first_seq``: of the next message if the stream is empty."""

    first_seq: int
    last_seq: int
    messages: int
    bytes: int

    @classmethod
    def of(cls, state: StreamState) -> "Stream":
        first_seq = state.first_seq if state.messages else state.last_seq + 1
        return cls(first_seq, state.last_seq, state.messages, state.bytes)


def removable(stream: Stream, counted: int, recounted: int, max_bytes: int) -> int:
    """The sequence up to which counted messages are removed to make room; 0 if there is room. Pure.

    A stream that is half full is brought down to a quarter. The message counted last always stays, since it identifies
    the stream. Messages that reconciliation has not read stay until the stream is nearly full: rejected events are
    worse than a reconciliation that restarts.

    Args:
        stream: its messages.
        counted: sequence of the last counted message.
        recounted: sequence of the last message that reconciliation read.
        max_bytes: the stream's limit.
    """
    if stream.bytes <= max_bytes / 2:
        return 0
    retained = int(max_bytes / 4 * stream.messages / stream.bytes)
    before = min(stream.last_seq - retained, counted)
    if stream.bytes <= max_bytes * NEARLY_FULL:
        before = min(before, recounted)
    return before if before > stream.first_seq else 0


class Consumer:
    """Args:
    pool: of the database with the counters.
    client: a connection to the NATS account of the event stream.
    recorder: records the backlog.
    max_bytes: maximum size of the stream.
    replicas: number of nodes that store it.
    """

    def __init__(
        self, pool: Pool, client: Client, recorder: MetricsRecorder, *, max_bytes: int, replicas: int = 1
    ) -> None:
        self._pool = pool
        self._client = client
        self._stream: JetStreamContext = client.jetstream()
        self._max_bytes = max_bytes
        self._replicas = replicas
        self._position = Position(datetime.min.replace(tzinfo=UTC), 0, None)
        self._epoch = 0
        self._watch = Watch(LEASE_S)
        self._heartbeats = Heartbeats()
        self._last_logged = ""
        self.halt_reason: str | None = None
        """Why counting waits for an operator; None if it does not."""
        self._lag = 0
        self._counting = False
        self._series = (SeriesBudget(), SeriesBudget())
        self._last_housekeeping_s = 0.0
        recorder.gauge(catalogue.STREAM_LAG, lambda: self._lag)

    def is_caught_up(self) -> bool:
        """Whether this process counts, and its backlog is small."""
        return self._counting and self._lag < BATCH

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                if await self._elected():
                    await self._consume()
            except NotTheOwner:
                # The lease ran out and another process took over. Nothing was written here since.
                self._log_once(logging.WARNING, "another metrics service counts")
            except CountingHalted as halt:
                await self._halt(str(halt))
            except NOT_NOW as error:
                self._log_once(logging.WARNING, f"not counting for now: {error or type(error).__name__}")
            finally:
                self._lag, self._counting = 0, False
                await self._resign()
            await asyncio.sleep(POLL_S)

    async def _elected(self) -> bool:
        async with self._pool.acquire(timeout=1) as connection:
            lease = await positions.lease(connection, EVENTS_STREAM)
            self.halt_reason = lease.halt_reason if lease else None
            if lease is None:
                observed = await self._observe()
                epoch = await positions.begin(
                    connection, EVENTS_STREAM, observed.created, observed.first_seq - 1
                )
            elif lease.halt_reason is not None:
                self._log_once(logging.ERROR, f"not counting until an operator decides: {lease.halt_reason}")
                return False
            elif self._watch.is_over(lease, time.monotonic()):
                epoch = await positions.take_over(connection, EVENTS_STREAM, lease)
            else:
                epoch = None
            if epoch is None:
                self._log_once(logging.INFO, "standing by: another metrics service counts")
                return False
            self._epoch = epoch
        return True

    def _log_once(self, level: int, message: str) -> None:
        """Logs a state when it begins, not each time it is seen."""
        if message != self._last_logged:
            log.log(level, message)
        self._last_logged = message

    async def _halt(self, reason: str) -> None:
        with suppress(*NOT_NOW):
            async with self._pool.acquire(timeout=1) as connection:
                await positions.halt(connection, EVENTS_STREAM, self._epoch, reason)

    async def _resign(self) -> None:
        """Gives the lease up, so that another process takes over at once."""
        with suppress(*NOT_NOW):
            async with self._pool.acquire(timeout=1) as connection:
                await positions.resign(connection, EVENTS_STREAM, self._epoch)
        self._epoch = 0

    async def _observe(self) -> ObservedStream:
        try:
            info = await self._stream.stream_info(EVENTS_STREAM)
        except NotFoundError:
            # It was deleted. New events have to be stored, whether counting resumes or halts.
            await ensure_stream(self._client, max_bytes=self._max_bytes, replicas=self._replicas)
            info = await self._stream.stream_info(EVENTS_STREAM)
        stream = Stream.of(info.state)
        return ObservedStream(_created(info.created), stream.first_seq, stream.last_seq)

    async def _consume(self) -> None:
        """Raises:
        CountingHalted: the stream is not the one that was counted.
        """
        observed = await self._observe()
        async with self._pool.acquire(timeout=1) as connection:
            position = await positions.position(connection, EVENTS_STREAM, self._epoch, observed)
            # Only the owner adds series and threads, so it knows all of them from here on.
            self._series = await counts.series(connection)
            self._heartbeats = Heartbeats(await counts.living_threads(connection), time.monotonic())
        self._position = position
        # A new consumer at our position has no redelivery to wait for, and a former owner loses its own. The name is
        # fixed, so that NATS permissions can name it.
        with suppress(NotFoundError):
            await self._stream.delete_consumer(EVENTS_STREAM, STREAM_CONSUMER)
        await self._stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                name=STREAM_CONSUMER,
                durable_name=STREAM_CONSUMER,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                # The message counted last comes first, if the stream still holds it: it identifies the stream.
                opt_start_seq=max(position.seq, 1),
                ack_policy=AckPolicy.ALL,
                max_ack_pending=BATCH * 4,
            ),
        )
        async with delivery(self._client, f"{EVENTS_STREAM}.{STREAM_CONSUMER}", BATCH) as delivered:
            batch = await self._recognize(position, observed, delivered)
            self._log_once(logging.INFO, "counting")
            self._counting = True
            while True:
                if batch:
                    await self._count([item.message for item in batch])
                    await delivered.acknowledge(batch[-1])
                    self._lag = batch[-1].pending
                if time.monotonic() - self._last_housekeeping_s > HOUSEKEEPING_S:
                    self._last_housekeeping_s = time.monotonic()
                    await self._housekeeping()
                batch = await delivered.take(timeout_s=1)

    async def _recognize(
        self, position: Position, observed: ObservedStream, delivered: Delivery
    ) -> list[Delivered]:
        """Checks that the stream is the one that was counted, and returns the messages delivered after the position.

        Raises:
            CountingHalted: it is another stream.
        """
        batch: list[Delivered] = []
        if observed.holds(position.seq):
            batch = await delivered.take(timeout_s=LINGER_S + 1)
            if not batch:
                raise Interrupted("the message counted last was not delivered")
            await delivered.acknowledge(batch[0])
            # It may have expired meanwhile.
            observed = (await self._observe())._replace(message=batch[0].message)
        if reason := discontinuity(position, observed):
            raise CountingHalted(reason)
        return [item for item in batch if item.message.seq > position.seq]

    async def _count(self, batch: list[Message]) -> None:
        """Raises:
        Interrupted: the consumer delivered a message again.
        CountingHalted: a message is gone that was not counted.
        """
        tally = Tally()
        decoded = []
        last = self._position.seq
        for message in batch:
            if message.seq <= last:
                raise Interrupted("a message was delivered again")
            if message.seq > last + 1 and last >= self._position.holes_until:
                raise CountingHalted(
                    f"the event stream does not hold the message {last + 1}, which was not counted"
                )
            last = message.seq
            try:
                decoded.append(decode(message))
            except NotAnEvent as reason:
                tally.add(catalogue.DEAD_LETTERS)
                tally.dead_letters.append(DeadLetter(message, str(reason)))
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await positions.move(connection, EVENTS_STREAM, self._epoch, self._position.seq, batch[-1])
            state = await counts.load(connection, batch_keys(decoded))
            state.counters, state.gauges = self._series
            state.bare_until = self._position.bare_until
            apply(decoded, state, tally)
            await counts.save(connection, EVENTS_STREAM, state, tally)
        self._position = self._position._replace(seq=last)
        self._heartbeats.record(state.threads, time.monotonic())

    async def _housekeeping(self) -> None:
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await positions.move(connection, EVENTS_STREAM, self._epoch, self._position.seq)
            # A large backlog may hold heartbeats of these threads.
            silent = self._heartbeats.silent(time.monotonic(), SILENCE_S) if self._lag < BATCH else set()
            if silent:
                state = await counts.load(connection, BatchKeys(set(), silent, set()))
                now = await counts.stream_time(connection)
                tally = Tally()
                lost = {name: mark_lost(thread, now, tally) for name, thread in state.threads.items()}
                await counts.save_lost(connection, lost, tally)
            await counts.delete_expired(connection)
            recounted = await recounts.recount_position(connection, EVENTS_STREAM)
        self._heartbeats.forget(silent)
        stream = Stream.of((await self._stream.stream_info(EVENTS_STREAM)).state)
        counted = self._position.seq
        if before := removable(stream, counted, recounted or counted, self._max_bytes):
            await self._stream.purge_stream(EVENTS_STREAM, seq=before)


def _created(created: datetime | str | None) -> datetime:
    if created is None:
        raise RuntimeError("the server did not report when the stream was created")
    # PostgreSQL stores microseconds.
    return created if isinstance(created, datetime) else datetime.fromisoformat(created)
