"""Reads the stream in order and counts it: position, marks, counters and dead letters in one transaction, and
only then an acknowledgement.
"""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from services.metrics import declared, store
from services.metrics.counters import (
    DeadLetter,
    Message,
    NotAnEvent,
    Series,
    Tally,
    apply,
    decode,
    lose,
    mentioned,
)
from services.metrics.delivery import NOT_NOW, delivery
from services.metrics.store import NotTheOwner
from shared.contracts import EVENTS_PREFIX, EVENTS_STREAM, STREAM_CONSUMER
from shared.events import HEARTBEAT_S
from shared.lifecycle import Unavailable
from shared.measures import Measures
from shared.postgres import Pool

log = logging.getLogger(__name__)

BATCH = 2000
HOUSEKEEPING_S = 1.0
LOOK_S = 0.5
"""How often a standby looks whether the owner still counts."""
LEASE_S = 4.0
"""An owner that has written nothing for this long is followed by another."""
KEPT = 100_000
"""Counted events that stay in a stream that is half full."""
SILENCE_S = 6 * HEARTBEAT_S
"""A thread not heard of for this long counts as stopped."""


async def ensure_stream(client: Client, *, max_bytes: int, replicas: int = 1, wait_s: float = 10) -> None:
    """Creates the stream unless it is there, and has as many nodes keep it as wanted. A full one refuses events
    instead of dropping acknowledged ones.

    Raises:
        Unavailable: JetStream did not do so within ``wait_s``: its nodes have to find each other first.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await _ensure_stream(client.jetstream(timeout=2), max_bytes, replicas)
        except (NatsError, APIError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"JetStream did not make the stream within {wait_s:g} s: {error}") from None
            await asyncio.sleep(0.2)


async def _ensure_stream(stream: JetStreamContext, max_bytes: int, replicas: int) -> None:
    try:
        config = (await stream.stream_info(EVENTS_STREAM)).config
        if config.num_replicas != replicas:
            await stream.update_stream(config.evolve(num_replicas=replicas))
    except NotFoundError:
        await stream.add_stream(
            StreamConfig(
                name=EVENTS_STREAM,
                subjects=[EVENTS_PREFIX + ">"],
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                max_age=8 * 24 * 3600,
                max_bytes=max_bytes,
                max_msg_size=64 * 1024,
                num_replicas=replicas,
            )
        )


class Consumer:
    """Args:
    pool: where the counters are.
    client: a connection to the NATS account that holds the event stream.
    measures: where to show how far behind this is.
    max_bytes: how large the stream may become.
    """

    def __init__(self, pool: Pool, client: Client, measures: Measures, max_bytes: int) -> None:
        self._pool = pool
        self._client = client
        self._stream: JetStreamContext = client.jetstream()
        self._max_bytes = max_bytes
        self._position = 0
        self._epoch = 0
        self._standing_by = False
        self._lag = 0
        self._counting = False
        self._series = (Series(), Series())
        self._kept_house = 0.0
        measures.gauge(declared.STREAM_LAG.name, lambda: self._lag)

    def has_time(self) -> bool:
        """Whether this one counts, and has kept up."""
        return self._counting and self._lag < BATCH

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            StreamRecreated: see there.
        """
        while True:
            try:
                if await self._elected():
                    log.info("counting")
                    await self._consume()
            except NotTheOwner:
                # We fell silent for longer than the lease, and another was elected. Nothing of ours was written since.
                log.warning("another metrics service counts")
            except NOT_NOW as error:
                log.warning("not counting for now: %s", str(error) or type(error).__name__)
            finally:
                self._lag, self._counting = 0, False
                await self._resign()
            await asyncio.sleep(LOOK_S)

    async def _elected(self) -> bool:
        info = await self._stream.stream_info(EVENTS_STREAM)
        created = _created(info.created)
        async with self._pool.acquire(timeout=1) as connection:
            epoch = await store.take_over(connection, EVENTS_STREAM, created, LEASE_S)
            if epoch is None:
                if not self._standing_by:
                    log.info("standing by: another metrics service counts")
                self._standing_by = True
                return False
            self._epoch, self._standing_by = epoch, False
            self._position = await store.position(connection, EVENTS_STREAM, created, info.state.last_seq)
            # Only the owner makes series, so it knows them all from here on.
            self._series = await store.series(connection)
        return True

    async def _resign(self) -> None:
        """Lets another count at once, should this one have counted."""
        with suppress(*NOT_NOW):
            async with self._pool.acquire(timeout=1) as connection:
                await store.resign(connection, EVENTS_STREAM, self._epoch)

    async def _consume(self) -> None:
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
                opt_start_seq=self._position + 1,
                ack_policy=AckPolicy.ALL,
                max_ack_pending=BATCH * 4,
            ),
        )
        async with delivery(self._client, f"{EVENTS_STREAM}.{STREAM_CONSUMER}", BATCH) as delivered:
            self._counting = True
            while True:
                batch = await delivered.take(timeout_s=1)
                if batch:
                    await self._count([each.message for each in batch])
                    await delivered.acknowledge(batch[-1])
                    self._lag = batch[-1].pending
                if self._lag < BATCH and time.monotonic() - self._kept_house > HOUSEKEEPING_S:
                    # What is stored is the present, so threads that fell silent can be told.
                    self._kept_house = time.monotonic()
                    await self._keep_house()

    async def _count(self, batch: list[Message]) -> None:
        tally = Tally()
        decoded = []
        last = self._position
        for message in batch:
            if message.seq <= last:
                continue  # delivered again
            last = message.seq
            try:
                decoded.append(decode(message))
            except NotAnEvent as reason:
                tally.add(declared.DEAD_LETTERS)
                tally.dead_letters.append(DeadLetter(message, str(reason)))
        if last == self._position:
            return
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await store.move(connection, EVENTS_STREAM, self._epoch, self._position, last)
            state = await store.load(connection, mentioned(decoded))
            state.counters, state.gauges = self._series
            apply(decoded, state, tally)
            await store.save(connection, EVENTS_STREAM, state, tally)
        self._position = last

    async def _keep_house(self) -> None:
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await store.move(connection, EVENTS_STREAM, self._epoch, self._position, self._position)
            now, silent = await store.silent_threads(connection, SILENCE_S)
            if silent:
                tally = Tally()
                lost = {thread: lose(state, now, tally) for thread, state in silent.items()}
                await store.save_lost(connection, lost, tally)
            await store.forget_old(connection)
        state = (await self._stream.stream_info(EVENTS_STREAM)).state
        if state.bytes > self._max_bytes / 2 and self._position - KEPT > state.first_seq:
            # A full stream refuses events, and these are counted: they are kept only to look at.
            await self._stream.purge_stream(EVENTS_STREAM, seq=self._position - KEPT)


def _created(created: datetime | str | None) -> datetime:
    if created is None:
        raise RuntimeError("the server does not say when the stream was created")
    # PostgreSQL keeps microseconds.
    return created if isinstance(created, datetime) else datetime.fromisoformat(created)
