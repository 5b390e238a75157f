"""Counts the stream a second time, slowly, some way behind and with a separate position, and compares the results.

The position and the counters are written in one transaction, so reading them together yields the counters at exactly
this position. The recount continues to the same position and compares every counter that depends on the events alone,
and not on a clock.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import asyncpg
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from tallystick.contracts.events import EVENTS_STREAM, RECONCILIATION_CONSUMER
from tallystick.metrics import catalogue
from tallystick_server.metrics.counters import State, Tally, apply
from tallystick_server.metrics.events import Decoded, Message, NotAnEvent, batch_keys, decode
from tallystick_server.metrics.pull_consumer import NOT_NOW, delivery
from tallystick_server.metrics.series import Labels, SeriesBudget
from tallystick_server.metrics.store import positions, recounts
from tallystick_server.metrics.store.counts import MOST_COUNTED
from tallystick_server.metrics.store.positions import NotTheOwner
from tallystick_server.metrics.store.recounts import RecountState
from tallystick_server.runtime.postgres import Pool

log = logging.getLogger(__name__)

BATCH = 500
POLL_S = 5.0
"""How often to check for messages to recount."""
SHARE = 0.1
"""Share of the time that the recount works."""
BY_THE_CLOCK = frozenset(
    metric.name
    for metric in (
        catalogue.THREAD_STARTS,
        catalogue.THREAD_STOPS,
        catalogue.THREADS_LOST,
        catalogue.UNMATCHED_STOPS,
    )
)
"""Counters that depend on when heartbeats were missed, and not only on the events."""
LATER: tuple[type[Exception], ...] = (*NOT_NOW, NotTheOwner, asyncpg.SerializationError)


class NoLongerHeld(Exception):
    """The stream dropped messages before they were recounted: reconciliation restarts from the stored counters."""


class Recount:
    """Args:
    pool: of the database with both counts.
    client: a connection to the NATS account of the event stream.
    is_caught_up: whether this process counts and its backlog is small; until then the recount waits.
    """

    def __init__(self, pool: Pool, client: Client, is_caught_up: Callable[[], bool]) -> None:
        self._pool = pool
        self._client = client
        self._stream = client.jetstream()
        self._has_time = is_caught_up

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if self._has_time():
                try:
                    await self.catch_up()
                except LATER as error:
                    log.info("recounting later: %s", str(error) or type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def catch_up(self) -> None:
        """Recounts up to the present position of the counters, and compares there.

        Raises:
            LATER: another process recounts, or NATS or PostgreSQL is unavailable.
        """
        async with self._pool.acquire(timeout=1) as connection:
            goal, stored = await recounts.load_counters(connection, EVENTS_STREAM)
            recount = await recounts.load_recount(connection, EVENTS_STREAM)
            if recount is None:
                await recounts.begin_recount(connection, EVENTS_STREAM, BY_THE_CLOCK)
                return
        try:
            await self._read(recount, goal)
        except NoLongerHeld:
            log.warning("reconciliation restarts: the stream dropped messages that were not recounted")
            async with self._pool.acquire(timeout=1) as connection:
                await recounts.begin_recount(connection, EVENTS_STREAM, BY_THE_CLOCK)
            return
        difference = total_difference(stored, recount.counters)
        async with self._pool.acquire(timeout=1) as connection:
            await recounts.save_comparison(connection, EVENTS_STREAM, goal, difference)
        if difference:
            log.error("the counters differ from the stream by %d events at message %d", difference, goal)

    async def _read(self, recount: RecountState, goal: int) -> None:
        """Recounts up to the message ``goal``.

        Raises:
            NoLongerHeld: the stream dropped messages before they were recounted.
        """
        if goal == recount.seq:
            return
        # One that another process left behind would deliver from another position.
        with suppress(NotFoundError):
            await self._stream.delete_consumer(EVENTS_STREAM, RECONCILIATION_CONSUMER)
        await self._stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                name=RECONCILIATION_CONSUMER,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=recount.seq + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=30,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        series = SeriesBudget(key for key in recount.counters if key[1])
        async with delivery(self._client, f"{EVENTS_STREAM}.{RECONCILIATION_CONSUMER}", BATCH) as delivered:
            while recount.seq < goal:
                messages = [item.message for item in await delivered.take(timeout_s=1)]
                began = time.monotonic()
                if [message.seq for message in messages] != list(
                    range(recount.seq + 1, recount.seq + 1 + len(messages))
                ):
                    raise NoLongerHeld
                await self._count([message for message in messages if message.seq <= goal], recount, series)
                await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        await self._stream.delete_consumer(EVENTS_STREAM, RECONCILIATION_CONSUMER)

    async def _count(self, messages: list[Message], recount: RecountState, series: SeriesBudget) -> None:
        if not messages:
            return
        tally = Tally()
        events = [event for message in messages if (event := _event(message, tally)) is not None]
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            source_keys = batch_keys(events).sources
            state = State(
                sources=await recounts.recounted_sources(connection, source_keys),
                counters=series,
                bare_until=await positions.bare_until(connection, EVENTS_STREAM),
            )
            apply(events, state, tally)
            added = Counter({key: n for key, n in tally.counters.items() if key[0] not in BY_THE_CLOCK})
            await recounts.move_recount(connection, EVENTS_STREAM, recount.seq, recount.seq + len(messages))
            await recounts.save_recount(connection, state.sources, added)
        recount.seq += len(messages)
        recount.counters.update(added)


def _event(message: Message, tally: Tally) -> Decoded | None:
    try:
        return decode(message)
    except NotAnEvent:
        tally.add(catalogue.DEAD_LETTERS)
        return None


def total_difference(stored: Counter[tuple[str, Labels]], load_recount: Counter[tuple[str, Labels]]) -> int:
    """The sum of the differences of all counters."""
    keys = {key for key in stored.keys() | load_recount.keys() if key[0] not in BY_THE_CLOCK}
    off = sum(abs(stored[key] - min(load_recount[key], MOST_COUNTED)) for key in keys)
    return min(off, MOST_COUNTED)
