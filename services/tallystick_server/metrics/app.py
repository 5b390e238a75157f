"""Connects the metrics service and serves until a stop is requested."""

import logging
from contextlib import AsyncExitStack

from tallystick import connection as bus, producer as events
from tallystick.rpc.server import serve
from tallystick_server.metrics.consumer import Consumer, ensure_stream
from tallystick_server.metrics.handlers import MetricsHandlers
from tallystick_server.metrics.reconciliation import Recount
from tallystick_server.metrics.settings import Settings
from tallystick_server.metrics.store import schema
from tallystick_server.runtime import postgres
from tallystick_server.runtime.lifecycle import READY, Shutdown, background, touch_heartbeat_file

log = logging.getLogger(__name__)


async def run(settings: Settings, stop: Shutdown) -> None:
    """Raises:
    Unavailable: NATS or PostgreSQL did not come within ``settings.startup_timeout_s``.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            postgres.pool(settings.database_url, schema=schema.SCHEMA, wait_s=settings.startup_timeout_s)
        )

        async def migrate() -> None:
            async with pool.acquire() as connection:
                await schema.bring_up_to_date(connection)

        await postgres.patiently(migrate, wait_s=settings.startup_timeout_s)
        client = await stack.enter_async_context(
            bus.connect(
                settings.nats_url,
                "metrics",
                stop.unavailable,
                wait_s=settings.startup_timeout_s,
                authority=settings.nats_ca,
            )
        )
        stream_client = await stack.enter_async_context(
            bus.connect(
                settings.events_nats_url or settings.nats_url,
                "events" if settings.events_nats_url else "metrics",
                stop.unavailable,
                wait_s=settings.startup_timeout_s,
                authority=settings.nats_ca,
            )
        )
        await ensure_stream(
            stream_client,
            max_bytes=settings.stream_max_bytes,
            replicas=settings.stream_replicas,
            wait_s=settings.startup_timeout_s,
        )
        producer = await stack.enter_async_context(events.producer(client, "metrics"))
        consumer = Consumer(
            pool,
            stream_client,
            producer.recorder,
            max_bytes=settings.stream_max_bytes,
            replicas=settings.stream_replicas,
        )
        await stack.enter_async_context(background(consumer.run(), stop))
        recount = Recount(pool, stream_client, consumer.is_caught_up)
        await stack.enter_async_context(background(recount.run(), stop))
        await stack.enter_async_context(producer.thread("metrics", settings.thread))
        await stack.enter_async_context(
            serve(
                client,
                "tallystick-metrics",
                "counts events and renders them for Prometheus",
                MetricsHandlers(pool, lambda: producer.stream_health).all(),
                unavailable=postgres.UNAVAILABLE,
                malformed=postgres.MALFORMED,
            )
        )
        if settings.heartbeat_file:

            def status() -> str:
                if consumer.halt_reason:
                    return f"not counting until an operator decides: {consumer.halt_reason}"
                health = producer.stream_health
                return READY if health == "writable" else f"the event stream is {health}"

            await stack.enter_async_context(
                background(touch_heartbeat_file(settings.heartbeat_file, status), stop)
            )
        log.info("ready")
        await stop.wait()
