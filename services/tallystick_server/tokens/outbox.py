"""Announces what the outbox holds: at least once, in order, by whichever replica holds the lock."""

import asyncio
import logging

from nats.aio.client import Client

from tallystick import producer
from tallystick_server.runtime.postgres import UNAVAILABLE, Pool
from tallystick_server.tokens.store import outbox as store

log = logging.getLogger(__name__)

NOT_NOW = UNAVAILABLE + producer.NOT_STORED
BATCH_SIZE = 100
LOOK_S = 1.0
"""How often to look for what another replica left behind when it died after its commit."""


class Outbox:
    def __init__(self, pool: Pool, client: Client) -> None:
        self._pool = pool
        self._stream = client.jetstream()
        self._filled = asyncio.Event()

    def filled(self) -> None:
        self._filled.set()

    async def deliver(self) -> None:
        """Runs until cancelled."""
        while True:
            self._filled.clear()
            try:
                while await self._deliver_batch():
                    pass
            except NOT_NOW as error:
                log.debug("outbox not delivered yet: %s", type(error).__name__)
            try:
                await asyncio.wait_for(self._filled.wait(), LOOK_S)
            except TimeoutError:
                continue

    async def _deliver_batch(self) -> bool:
        """Publishes some announcements and deletes them. Returns whether there may be more."""
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            if not await store.lock(connection):
                return False
            events = await store.oldest(connection, BATCH_SIZE)
            published = None
            try:
                for event in events:
                    await producer.publish(self._stream, event)
                    published = event.n
            finally:
                # What was stored before one failed need not be sent again.
                if published is not None:
                    await store.delete_up_to(connection, published)
        return len(events) == BATCH_SIZE
