"""Announces what the outbox holds: at least once, in order, by whichever replica holds the lock."""

import asyncio
import logging

import msgspec
from nats.aio.client import Client

from tallystick import producer
from tallystick.contracts.events import Event
from tallystick_server.runtime.postgres import UNAVAILABLE, Pool

log = logging.getLogger(__name__)

NOT_NOW = UNAVAILABLE + producer.NOT_STORED
SOURCE = "tokens"
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
        """Publishes up to 100 rows and deletes them; answers whether there may be more."""
        async with self._pool.acquire(timeout=1) as connection, connection.transaction():
            if not await connection.fetchval(
                "select pg_try_advisory_xact_lock(hashtext('tallystick outbox'))"
            ):
                return False
            rows = await connection.fetch(
                "select boot, o.* from outbox o cross join outbox_number order by o.n limit 100"
            )
            published = None
            try:
                for row in rows:
                    await producer.publish(
                        self._stream,
                        Event(
                            type=row["type"],
                            source=SOURCE,
                            boot=row["boot"],
                            n=row["n"],
                            time=row["at"],
                            data=msgspec.json.decode(row["data"]),
                        ),
                    )
                    published = row["n"]
            finally:
                # What was stored before one failed need not be sent again.
                if published is not None:
                    await connection.execute("delete from outbox where n <= $1", published)
        return len(rows) == 100
