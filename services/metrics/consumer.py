"""Reads the stream in order and counts it: position, marks, counters and dead letters in one transaction, and
only then an acknowledgement.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from services.metrics import declared, store
from services.metrics.counters import DeadLetter, Message, NotAnEvent, Tally, apply, decode, lose, mentioned
from shared.contracts import EVENTS_PREFIX, EVENTS_STREAM
from shared.events import HEARTBEAT_S
from shared.postgres import UNAVAILABLE, Pool

log = logging.getLogger(__name__)

NOT_NOW: tuple[type[Exception], ...] = (*UNAVAILABLE, NatsError, APIError)
BATCH = 500
DURABLE = "metrics"
SILENCE_S = 6 * HEARTBEAT_S
"""A thread not heard of for this long counts as stopped."""


async def ensure_stream(client: Client, *, max_bytes: int, replicas: int = 1) -> None:
    """Creates the stream unless it is there, and has as many nodes keep it as wanted. A full one refuses events
    instead of dropping acknowledged ones.
    """
    stream = client.jetstream()
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


@asynccontextmanager
async def ownership(pool: Pool) -> AsyncIterator[None]:
    """Waits until this process is the only one that counts; others stand by."""
    async with pool.acquire() as connection:
        said = False
        while not await connection.fetchval(
            "select pg_try_advisory_lock(hashtext('tallystick metrics owner'))"
        ):
            if not said:
                log.info("standing by: another metrics service counts")
                said = True
            await asyncio.sleep(0.5)
        log.info("counting")
        try:
            yield
        finally:
            # A connection that PostgreSQL ended has given the lock back already.
            with suppress(*UNAVAILABLE):
                await connection.execute("select pg_advisory_unlock(hashtext('tallystick metrics owner'))")


class Consumer:
    def __init__(self, pool: Pool, client: Client) -> None:
        self._pool = pool
        self._stream: JetStreamContext = client.jetstream()
        self._position = 0

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            StreamRecreated: see there.
            NotTheOwner: another process counts.
        """
        async with ownership(self._pool):
            while True:
                try:
                    await self._consume()
                except NOT_NOW as error:
                    log.warning("not counting for now: %s", type(error).__name__)
                    await asyncio.sleep(0.5)

    async def _consume(self) -> None:
        info = await self._stream.stream_info(EVENTS_STREAM)
        async with self._pool.acquire(timeout=1) as connection:
            self._position = await store.position(
                connection, EVENTS_STREAM, _created(info.created), info.state.last_seq
            )
        # A consumer made anew at the position has no redelivery to wait for and may have been deleted by anyone.
        with suppress(NotFoundError):
            await self._stream.delete_consumer(EVENTS_STREAM, DURABLE)
        await self._stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                durable_name=DURABLE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._position + 1,
                ack_policy=AckPolicy.ALL,
                max_ack_pending=BATCH * 4,
            ),
        )
        subscription = await self._stream.pull_subscribe_bind(DURABLE, EVENTS_STREAM)
        try:
            while True:
                try:
                    batch = await subscription.fetch(BATCH, timeout=1)
                except TimeoutError:
                    await self._idle()
                    continue
                await self._count(batch)
                await batch[-1].ack()
        finally:
            await subscription.unsubscribe()

    async def _count(self, batch: list[Msg]) -> None:
        tally = Tally()
        decoded = []
        last = self._position
        for message in (_message(received) for received in batch):
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
            await store.move(connection, EVENTS_STREAM, self._position, last)
            state = await store.load(connection, mentioned(decoded))
            apply(decoded, state, tally)
            await store.save(connection, EVENTS_STREAM, state, tally)
        self._position = last

    async def _idle(self) -> None:
        """Nothing to count, so what is stored is the present: threads that fell silent can be told."""
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            await store.move(connection, EVENTS_STREAM, self._position, self._position)
            now, silent = await store.silent_threads(connection, SILENCE_S)
            if silent:
                tally = Tally()
                lost = {thread: lose(state, now, tally) for thread, state in silent.items()}
                await store.save_lost(connection, lost, tally)
            await store.forget_old(connection)


def _message(received: Msg) -> Message:
    metadata = received.metadata
    return Message(metadata.sequence.stream, received.subject, received.data, metadata.timestamp)


def _created(created: datetime | str | None) -> datetime:
    if created is None:
        raise RuntimeError("the server does not say when the stream was created")
    # PostgreSQL keeps microseconds.
    return created if isinstance(created, datetime) else datetime.fromisoformat(created)
