"""How many events a second the metrics service counts, as a ratio to a bare pull consumer that does the same batch
transaction without its logic; the median of some rounds over the same events.

    .venv/bin/python -m bench.counting
"""

import asyncio
import statistics
import time

import asyncpg
import msgspec
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig

from bench.checks import say
from services.metrics import store
from services.metrics.consumer import BATCH, Consumer, ensure_stream
from shared import bus, postgres
from shared.contracts import EVENTS_PREFIX, EVENTS_STREAM, AccountState, Event
from shared.ids import new_id
from shared.lifecycle import Stop, ended_by_cancelling
from shared.measures import Measures
from tests.proofs.fleet import fleet

EVENTS = 50_000
SOURCES = 8
ROUNDS = 3


async def publish(url: str) -> None:
    async with bus.connect(url, "metrics", Stop(), wait_s=10) as client:
        await ensure_stream(client, max_bytes=1 << 30, replicas=1)
        boots = [new_id("boot_") for _ in range(SOURCES)]
        for n in range(EVENTS):
            source = n % SOURCES
            event = Event(
                type="account.state",
                source=f"source-{source}",
                boot=boots[source],
                n=n // SOURCES + 1,
                data=msgspec.to_builtins(AccountState(account=f"account-{n % 500}", state="connected")),
            )
            await client.publish(EVENTS_PREFIX + event.type, msgspec.json.encode(event))
            if n % 500 == 0:
                await client.flush()
        stream = client.jetstream()
        while (await stream.stream_info(EVENTS_STREAM)).state.last_seq < EVENTS:
            await asyncio.sleep(0.05)


async def ours(database: str, nats: str) -> float:
    """Seconds for all events."""
    async with (
        postgres.pool(database, schema="metrics", wait_s=10) as pool,
        bus.connect(nats, "metrics", Stop(), wait_s=10) as client,
    ):
        await pool.execute("truncate stream_position, event_source, counter, recent_count, account")
        counting = asyncio.create_task(Consumer(pool, database, client, Measures(), 1 << 30).run())
        began = time.perf_counter()
        counted = "select value from counter where name = 'events' and labels = 'event=\"account.state\"'"
        while await pool.fetchval(counted) != EVENTS:
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
        await ended_by_cancelling(counting)
        return took


async def bare(database: str, nats: str) -> float:
    """The same batches, and the same statements for position, marks and counters, with nothing looked at."""
    connection = await asyncpg.connect(database, server_settings={"search_path": "metrics"})
    await connection.execute("truncate stream_position, event_source, counter")
    await connection.execute("insert into stream_position (stream, created, seq) values ('x', now(), 0)")
    async with bus.connect(nats, "metrics", Stop(), wait_s=10) as client:
        stream = client.jetstream()
        config = ConsumerConfig(durable_name="bare", ack_policy=AckPolicy.ALL, max_ack_pending=BATCH * 4)
        await stream.add_consumer(EVENTS_STREAM, config)
        subscription = await stream.pull_subscribe_bind("bare", EVENTS_STREAM)
        began = time.perf_counter()
        done = 0
        while done < EVENTS:
            batch = await subscription.fetch(BATCH, timeout=5)
            done += len(batch)
            async with connection.transaction():
                await connection.execute("update stream_position set seq = $1", done)
                await connection.execute(
                    "insert into event_source (source, boot, n) values ('x', 'x', $1)"
                    " on conflict (source, boot) do update set n = excluded.n",
                    done,
                )
                await connection.execute(
                    "insert into counter (name, labels, value) values ('x', '', $1)"
                    " on conflict (name, labels) do update set value = counter.value + excluded.value",
                    len(batch),
                )
            await batch[-1].ack()
        took = time.perf_counter() - began
        await subscription.unsubscribe()
        await stream.delete_consumer(EVENTS_STREAM, "bare")
    await connection.close()
    return took


async def run() -> None:
    async with fleet(edges=0, replicas=1, counters=0) as running:
        database, nats = running.database_url("metrics"), running.nats_url("metrics")
        async with postgres.pool(database, schema="metrics", wait_s=10) as pool, pool.acquire() as connection:
            await store.bring_up_to_date(connection)
        await publish(nats)
        found = [(await ours(database, nats), await bare(database, nats)) for _ in range(ROUNDS)]
    say(
        "events counted : a bare pull consumer with the same transaction",
        EVENTS / statistics.median(mine for mine, _ in found),
        EVENTS / statistics.median(theirs for _, theirs in found),
    )


if __name__ == "__main__":
    uvloop.run(run())
