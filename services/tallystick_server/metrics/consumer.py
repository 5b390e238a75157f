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
from tallystick_server.metrics.continuity import Found, Position, break_of
from tallystick_server.metrics.counters import Tally, apply, lose
from tallystick_server.metrics.events import DeadLetter, Mentioned, Message, NotAnEvent, decode, mentioned
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
LOOK_S = 0.5
"""How often a standby looks whether the owner still counts."""
LEASE_S = 4.0
"""An owner that has written nothing for this long is followed by another."""
NEARLY_FULL = 0.9
"""The part of its limit from which the stream makes room at any price but that of uncounted events."""
INSUFFICIENT_STORAGE = 10047
"""JetStream's error for a stream that is larger than the server allows."""
SILENCE_S = 6 * HEARTBEAT_S
"""A thread not heard of for this long counts as stopped."""


class Refused(Exception):
    """Counting on would count twice or skip events: an operator has to decide."""


async def ensure_stream(client: Client, *, max_bytes: int, replicas: int = 1, wait_s: float = 10) -> None:
    """Creates the stream, or gives the one that is there these limits and as many copies. A full one refuses events
    instead of dropping acknowledged ones.

    Raises:
        SettingsError: NATS allows no stream of this size.
        Unavailable: JetStream did not do so within ``wait_s``: its nodes have to find each other first.
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
                raise Unavailable(f"JetStream did not make the stream within {wait_s:g} s: {error}") from None
            await asyncio.sleep(0.2)


async def _ensure_stream(stream: JetStreamContext, max_bytes: int, replicas: int) -> None:
    new = StreamConfig(name=EVENTS_STREAM, storage=StorageType.FILE)
    try:
        there = (await stream.stream_info(EVENTS_STREAM)).config
    except NotFoundError:
        there = None
    wanted = (there or new).evolve(
        subjects=[EVENTS_PREFIX + ">"],
        discard=DiscardPolicy.NEW,
        max_age=8 * 24 * 3600,
        max_bytes=max_bytes,
        max_msg_size=64 * 1024,
        num_replicas=replicas,
    )
    if there is None:
        await stream.add_stream(wanted)
    elif wanted != there:
        await stream.update_stream(wanted)


class Stream(NamedTuple):
    """What the server says of the stream's messages. ``first_seq``: the next one's where there are none."""

    first_seq: int
    last_seq: int
    messages: int
    bytes: int

    @classmethod
    def of(cls, state: StreamState) -> "Stream":
        first_seq = state.first_seq if state.messages else state.last_seq + 1
        return cls(first_seq, state.last_seq, state.messages, state.bytes)


def removable(stream: Stream, counted: int, recounted: int, max_bytes: int) -> int:
    """The sequence before which counted messages have to go to make room; 0 while there is enough. Pure.

    A stream that is half full is brought down to a quarter. The message counted last always stays, since the stream is
    recognized by it. What the second count has not read stays until the stream is nearly full: refused events are
    worse than a second count that restarts.

    Args:
        stream: as it is.
        counted: the last counted message.
        recounted: the last one that was counted a second time.
        max_bytes: the stream's limit.
    """
    if stream.bytes <= max_bytes / 2:
        return 0
    kept = int(max_bytes / 4 * stream.messages / stream.bytes)
    before = min(stream.last_seq - kept, counted)
    if stream.bytes <= max_bytes * NEARLY_FULL:
        before = min(before, recounted)
    return before if before > stream.first_seq else 0


class Consumer:
    """Args:
    pool: where the counters are.
    client: a connection to the NATS account that holds the event stream.
    recorder: where to show how far behind this is.
    max_bytes: how large the stream may become.
    replicas: how many nodes keep it.
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
        self._said = ""
        self.refusal: str | None = None
        """Why nobody counts until an operator decides."""
        self._lag = 0
        self._counting = False
        self._series = (SeriesBudget(), SeriesBudget())
        self._kept_house = 0.0
        recorder.gauge(catalogue.STREAM_LAG, lambda: self._lag)

    def has_time(self) -> bool:
        """Whether this one counts, and has kept up."""
        return self._counting and self._lag < BATCH

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                if await self._elected():
                    await self._consume()
            except NotTheOwner:
                # We fell silent for longer than the lease, and another was elected. Nothing of ours was written since.
                self._say(logging.WARNING, "another metrics service counts")
            except Refused as refused:
                await self._refuse(str(refused))
            except NOT_NOW as error:
                self._say(logging.WARNING, f"not counting for now: {error or type(error).__name__}")
            finally:
                self._lag, self._counting = 0, False
                await self._resign()
            await asyncio.sleep(LOOK_S)

    async def _elected(self) -> bool:
        async with self._pool.acquire(timeout=1) as connection:
            lease = await positions.lease(connection, EVENTS_STREAM)
            self.refusal = lease.refusal if lease else None
            if lease is None:
                found = await self._found()
                epoch = await positions.begin(connection, EVENTS_STREAM, found.created, found.first_seq - 1)
            elif lease.refusal is not None:
                self._say(logging.ERROR, f"not counting until an operator decides: {lease.refusal}")
                return False
            elif self._watch.is_over(lease, time.monotonic()):
                epoch = await positions.take_over(connection, EVENTS_STREAM, lease)
            else:
                epoch = None
            if epoch is None:
                self._say(logging.INFO, "standing by: another metrics service counts")
                return False
            self._epoch = epoch
        return True

    def _say(self, level: int, what: str) -> None:
        """Logs what goes on for long once."""
        if what != self._said:
            log.log(level, what)
        self._said = what

    async def _refuse(self, reason: str) -> None:
        with suppress(*NOT_NOW):
            async with self._pool.acquire(timeout=1) as connection:
                await positions.refuse(connection, EVENTS_STREAM, self._epoch, reason)

    async def _resign(self) -> None:
        """Lets another count at once, should this one have counted."""
        with suppress(*NOT_NOW):
            async with self._pool.acquire(timeout=1) as connection:
                await positions.resign(connection, EVENTS_STREAM, self._epoch)
        self._epoch = 0

    async def _found(self) -> Found:
        try:
            info = await self._stream.stream_info(EVENTS_STREAM)
        except NotFoundError:
            # Somebody deleted it. Events have to be stored again, whatever becomes of counting them.
            await ensure_stream(self._client, max_bytes=self._max_bytes, replicas=self._replicas)
            info = await self._stream.stream_info(EVENTS_STREAM)
        stream = Stream.of(info.state)
        return Found(_created(info.created), stream.first_seq, stream.last_seq)

    async def _consume(self) -> None:
        """Raises:
        Refused: the stream is not the one that was counted.
        """
        found = await self._found()
        async with self._pool.acquire(timeout=1) as connection:
            position = await positions.position(connection, EVENTS_STREAM, self._epoch, found)
            # Only the owner makes series and threads, so it knows them all from here on.
            self._series = await counts.series(connection)
            self._heartbeats = Heartbeats(await counts.living_threads(connection), time.monotonic())
        self._position = position
        # A consumer created again at our position has no redelivery to wait for, and a former owner loses its own. Its
        # name is fixed, so that NATS permissions can name it.
        with suppress(NotFoundError):
            await self._stream.delete_consumer(EVENTS_STREAM, STREAM_CONSUMER)
        await self._stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                name=STREAM_CONSUMER,
                durable_name=STREAM_CONSUMER,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                # The message counted last comes first, if the stream still holds it: by it the stream is recognized.
                opt_start_seq=max(position.seq, 1),
                ack_policy=AckPolicy.ALL,
                max_ack_pending=BATCH * 4,
            ),
        )
        async with delivery(self._client, f"{EVENTS_STREAM}.{STREAM_CONSUMER}", BATCH) as delivered:
            batch = await self._recognize(position, found, delivered)
            self._say(logging.INFO, "counting")
            self._counting = True
            while True:
                if batch:
                    await self._count([each.message for each in batch])
                    await delivered.acknowledge(batch[-1])
                    self._lag = batch[-1].pending
                if time.monotonic() - self._kept_house > HOUSEKEEPING_S:
                    self._kept_house = time.monotonic()
                    await self._keep_house()
                batch = await delivered.take(timeout_s=1)

    async def _recognize(self, position: Position, found: Found, delivered: Delivery) -> list[Delivered]:
        """Compares the stream with what is remembered of it, and answers what was delivered after the position.

        Raises:
            Refused: it is not the stream that was counted.
        """
        batch: list[Delivered] = []
        if found.holds(position.seq):
            batch = await delivered.take(timeout_s=LINGER_S + 1)
            if not batch:
                raise Interrupted("the message counted last was not delivered")
            await delivered.acknowledge(batch[0])
            # It may have grown too old meanwhile.
            found = (await self._found())._replace(message=batch[0].message)
        if reason := break_of(position, found):
            raise Refused(reason)
        return [each for each in batch if each.message.seq > position.seq]

    async def _count(self, batch: list[Message]) -> None:
        """Raises:
        Interrupted: the consumer delivered something again.
        Refused: something that was not counted is gone.
        """
        tally = Tally()
        decoded = []
        last = self._position.seq
        for message in batch:
            if message.seq <= last:
                raise Interrupted("a message was delivered again")
            if message.seq > last + 1 and last >= self._position.holes_until:
                raise Refused(f"the event stream does not hold the message {last + 1}, which was not counted")
            last = message.seq
            try:
                decoded.append(decode(message))
            except NotAnEvent as reason:
                tally.add(catalogue.DEAD_LETTERS)
                tally.dead_letters.append(DeadLetter(message, str(reason)))
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await positions.move(connection, EVENTS_STREAM, self._epoch, self._position.seq, batch[-1])
            state = await counts.load(connection, mentioned(decoded))
            state.counters, state.gauges = self._series
            state.bare_until = self._position.bare_until
            apply(decoded, state, tally)
            await counts.save(connection, EVENTS_STREAM, state, tally)
        self._position = self._position._replace(seq=last)
        self._heartbeats.hear(state.threads, time.monotonic())

    async def _keep_house(self) -> None:
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await positions.move(connection, EVENTS_STREAM, self._epoch, self._position.seq)
            # While many wait, heartbeats may be among them.
            silent = self._heartbeats.silent(time.monotonic(), SILENCE_S) if self._lag < BATCH else set()
            if silent:
                state = await counts.load(connection, Mentioned(set(), silent, set()))
                now = await counts.stream_time(connection)
                tally = Tally()
                lost = {name: lose(thread, now, tally) for name, thread in state.threads.items()}
                await counts.save_lost(connection, lost, tally)
            await counts.forget_old(connection)
            recounted = await recounts.recount_position(connection, EVENTS_STREAM)
        self._heartbeats.forget(silent)
        stream = Stream.of((await self._stream.stream_info(EVENTS_STREAM)).state)
        counted = self._position.seq
        if before := removable(stream, counted, recounted or counted, self._max_bytes):
            await self._stream.purge_stream(EVENTS_STREAM, seq=before)


def _created(created: datetime | str | None) -> datetime:
    if created is None:
        raise RuntimeError("the server does not say when the stream was created")
    # PostgreSQL keeps microseconds.
    return created if isinstance(created, datetime) else datetime.fromisoformat(created)
