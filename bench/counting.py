"""How many events a second the metrics service counts, as a ratio to a bare pull consumer that writes the same rows in
the same batches and looks at nothing; medians of alternating rounds over the same events.

    .venv/bin/python -m bench.counting
"""

import asyncio
import statistics
import time
from datetime import UTC, datetime

import asyncpg
import msgspec
import uvloop
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from bench.checks import say
from tallystick import connection as bus
from tallystick.contracts import publishers
from tallystick.contracts.events import EVENTS_STREAM, AccountState, Event
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.tasks import cancel_and_wait
from tallystick.tokens.ids import new_id
from tallystick_server.metrics.consumer import BATCH, Consumer, ensure_stream
from tallystick_server.metrics.store import schema
from tallystick_server.runtime import postgres
from tests.chaos.fleet import fleet

EVENTS = 50_000
SOURCES = 8
ACCOUNTS = 500
ROUNDS = 5
TABLES = "stream_position, event_source, counter, recent_count, account"


async def publish(client: Client, kind: str) -> None:
    """Fills the stream as `tallystick.producer.publish` does, without waiting for each to be stored."""
    boots = [new_id("boot_") for _ in range(SOURCES)]
    for n in range(EVENTS):
        source = n % SOURCES
        event = Event(
            type=kind,
            source=f"service.{source}",
            boot=boots[source],
            n=n // SOURCES + 1,
            time=datetime.now(UTC),
            data=msgspec.to_builtins(AccountState(account=f"account-{n % ACCOUNTS}", state="connected")),
        )
        await client.publish(
            publishers.subject(event.source or "", event.type),
            msgspec.json.encode(event),
            headers={"Nats-Msg-Id": f"{event.source}/{event.boot}/{event.n}"},
        )
        if n % 500 == 0:
            await client.flush()
    stream = client.jetstream()
    while (await stream.stream_info(EVENTS_STREAM)).state.messages < EVENTS:
        await asyncio.sleep(0.05)


async def ours(database: str, nats: str, kind: str) -> float:
    """Seconds for all events."""
    async with (
        postgres.pool(database, schema="metrics", wait_s=10) as pool,
        bus.connect(nats, "jetstream", wait_s=10) as client,
    ):
        await pool.execute(f"truncate {TABLES}")
        counting = asyncio.create_task(Consumer(pool, client, MetricsRecorder(), max_bytes=1 << 30).run())
        began = time.perf_counter()
        counted = "select value from counter where name = 'events' and labels->>'event' = $1"
        while await pool.fetchval(counted, kind) != EVENTS:
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
        await cancel_and_wait(counting)
        return took


async def bare(database: str, nats: str, kind: str) -> float:
    """nats-py's fetch, and one transaction for each batch that writes what ours does."""
    connection = await asyncpg.connect(database, server_settings={"search_path": "metrics"})
    await connection.execute(f"truncate {TABLES}")
    await connection.execute("insert into stream_position (stream, created, seq) values ('x', now(), 0)")
    async with bus.connect(nats, "jetstream", wait_s=10) as client:
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
                await write(connection, kind, done, len(batch))
            await batch[-1].ack()
        took = time.perf_counter() - began
        await subscription.unsubscribe()
        await stream.delete_consumer(EVENTS_STREAM, "bare")
    await connection.close()
    return took


async def write(connection: postgres.Connection, kind: str, done: int, number: int) -> None:
    """The position, the marks, the counter, its minute; and the accounts where the events are about them."""
    await connection.execute("update stream_position set seq = $1", done)
    await connection.execute(
        "insert into event_source (source, boot, n) select unnest($1::text[]), 'x', $2"
        " on conflict (source, boot) do update set n = excluded.n",
        [f"source-{source}" for source in range(SOURCES)],
        done,
    )
    await connection.execute(
        "insert into counter (name, labels, value) values ('x', '{}', $1)"
        " on conflict (name, labels) do update set value = counter.value + excluded.value",
        number,
    )
    await connection.execute(
        "insert into recent_count (minute, name, value) values (date_trunc('minute', now()), 'x', $1)"
        " on conflict (minute, name) do update set value = recent_count.value + excluded.value",
        number,
    )
    if kind == "account.state":
        await connection.execute(
            "insert into account (account, state) select unnest($1::text[]), 'connected'"
            " on conflict (account) do update set state = excluded.state",
            [f"account-{account}" for account in range(min(number, ACCOUNTS))],
        )


async def run() -> None:
    async with fleet(edges=0, replicas=1, counters=0) as running:
        database, nats = running.database_url("metrics"), running.nats_url("jetstream")
        async with postgres.pool(database, schema="metrics", wait_s=10) as pool, pool.acquire() as connection:
            await schema.bring_up_to_date(connection)
        for kind in ("order.shipped", "account.state"):
            await compare(database, nats, kind)


async def compare(database: str, nats: str, kind: str) -> None:
    async with bus.connect(nats, "jetstream", wait_s=10) as client:
        await ensure_stream(client, max_bytes=1 << 30, replicas=1)
        await publish(client, kind)
        seconds = [
            (await ours(database, nats, kind), await bare(database, nats, kind)) for _ in range(ROUNDS)
        ]
        await client.jetstream().delete_stream(EVENTS_STREAM)
    say(
        f"{kind} counted : a bare pull consumer that writes the same rows",
        EVENTS / statistics.median(mine for mine, _ in seconds),
        EVENTS / statistics.median(theirs for _, theirs in seconds),
    )


if __name__ == "__main__":
    uvloop.run(run())
