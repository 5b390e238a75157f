"""Counts the stream a second time, some way behind, slowly and with its own marks, and compares.

The position and the counters are written in one transaction, so reading them together tells what the counters were
when exactly so much of the stream was counted. The recount then goes on to that same place and compares there: every
counter that follows from the events alone, without a clock.
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
from tallystick_server.metrics.events import Decoded, Message, NotAnEvent, decode, mentioned
from tallystick_server.metrics.pull_consumer import NOT_NOW, delivery
from tallystick_server.metrics.series import Labels, SeriesBudget
from tallystick_server.metrics.store import positions, recounts
from tallystick_server.metrics.store.counts import MOST_COUNTED
from tallystick_server.metrics.store.positions import NotTheOwner
from tallystick_server.metrics.store.recounts import Recounted
from tallystick_server.runtime.postgres import Pool

log = logging.getLogger(__name__)

BATCH = 500
LOOK_S = 5.0
"""How often to look whether there is something to recount."""
SHARE = 0.1
"""The part of its time that it works: it is in no hurry."""
BY_THE_CLOCK = frozenset(
    metric.name
    for metric in (
        catalogue.THREAD_STARTS,
        catalogue.THREAD_STOPS,
        catalogue.THREADS_LOST,
        catalogue.UNMATCHED_STOPS,
    )
)
"""What depends on when heartbeats were missed, and not only on what the stream holds."""
LATER: tuple[type[Exception], ...] = (*NOT_NOW, NotTheOwner, asyncpg.SerializationError)


class NoLongerHeld(Exception):
    """The stream has dropped messages that were to be recounted: reconciliation restarts from the stored counters."""


class Recount:
    """Args:
    pool: where both counts are.
    client: a connection to the NATS account that holds the event stream.
    has_time: whether this process counts and has kept up; else this waits.
    """

    def __init__(self, pool: Pool, client: Client, has_time: Callable[[], bool]) -> None:
        self._pool = pool
        self._client = client
        self._stream = client.jetstream()
        self._has_time = has_time

    async def keep(self) -> None:
        """Runs until cancelled."""
        while True:
            if self._has_time():
                try:
                    await self.catch_up()
                except LATER as error:
                    log.info("recounting later: %s", str(error) or type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def catch_up(self) -> None:
        """Recounts up to where the counters are now, and compares there.

        Raises:
            LATER: another process recounts, or NATS or PostgreSQL is away.
        """
        async with self._pool.acquire(timeout=1) as connection:
            goal, stored = await recounts.counted(connection, EVENTS_STREAM)
            found = await recounts.recounted(connection, EVENTS_STREAM)
            if found is None:
                await recounts.begin_recount(connection, EVENTS_STREAM, BY_THE_CLOCK)
                return
        try:
            await self._read(found, goal)
        except NoLongerHeld:
            log.warning("not everything could be recounted: the stream does not hold it any more")
            async with self._pool.acquire(timeout=1) as connection:
                await recounts.begin_recount(connection, EVENTS_STREAM, BY_THE_CLOCK)
            return
        difference = apart(stored, found.counters)
        async with self._pool.acquire(timeout=1) as connection:
            await recounts.save_comparison(connection, EVENTS_STREAM, goal, difference)
        if difference:
            log.error("the counters are off by %d from what the stream held up to %d", difference, goal)

    async def _read(self, found: Recounted, goal: int) -> None:
        """Brings ``found`` up to the goal.

        Raises:
            NoLongerHeld: see there.
        """
        if goal == found.seq:
            return
        # One that a process before left behind would deliver from another place.
        with suppress(NotFoundError):
            await self._stream.delete_consumer(EVENTS_STREAM, RECONCILIATION_CONSUMER)
        await self._stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                name=RECONCILIATION_CONSUMER,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=found.seq + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=30,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        series = SeriesBudget(key for key in found.counters if key[1])
        async with delivery(self._client, f"{EVENTS_STREAM}.{RECONCILIATION_CONSUMER}", BATCH) as delivered:
            while found.seq < goal:
                messages = [each.message for each in await delivered.take(timeout_s=1)]
                began = time.monotonic()
                if [each.seq for each in messages] != list(
                    range(found.seq + 1, found.seq + 1 + len(messages))
                ):
                    raise NoLongerHeld
                await self._count([each for each in messages if each.seq <= goal], found, series)
                await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        await self._stream.delete_consumer(EVENTS_STREAM, RECONCILIATION_CONSUMER)

    async def _count(self, messages: list[Message], found: Recounted, series: SeriesBudget) -> None:
        if not messages:
            return
        tally = Tally()
        events = [event for message in messages if (event := _event(message, tally)) is not None]
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            wanted = mentioned(events).sources
            state = State(
                sources=await recounts.recounted_sources(connection, wanted),
                counters=series,
                bare_until=await positions.bare_until(connection, EVENTS_STREAM),
            )
            apply(events, state, tally)
            added = Counter({key: n for key, n in tally.counters.items() if key[0] not in BY_THE_CLOCK})
            await recounts.move_recount(connection, EVENTS_STREAM, found.seq, found.seq + len(messages))
            await recounts.save_recount(connection, state.sources, added)
        found.seq += len(messages)
        found.counters.update(added)


def _event(message: Message, tally: Tally) -> Decoded | None:
    try:
        return decode(message)
    except NotAnEvent:
        tally.add(catalogue.DEAD_LETTERS)
        return None


def apart(stored: Counter[tuple[str, Labels]], recounted: Counter[tuple[str, Labels]]) -> int:
    """By how much two counts differ, all counters together."""
    keys = {key for key in stored.keys() | recounted.keys() if key[0] not in BY_THE_CLOCK}
    off = sum(abs(stored[key] - min(recounted[key], MOST_COUNTED)) for key in keys)
    return min(off, MOST_COUNTED)
