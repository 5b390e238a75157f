"""Connects the tokens service and serves until a stop is requested."""

import logging
from contextlib import AsyncExitStack

from tallystick import connection as bus, producer as events
from tallystick.rpc.server import serve
from tallystick_server.runtime import postgres
from tallystick_server.runtime.lifecycle import Shutdown, background, touch_heartbeat_file
from tallystick_server.tokens.handlers.accounts import AccountHandlers
from tallystick_server.tokens.handlers.imports import ImportHandlers
from tallystick_server.tokens.handlers.leases import LeaseHandlers
from tallystick_server.tokens.handlers.sessions import SessionHandlers
from tallystick_server.tokens.handlers.tokens import Policy, TokenHandlers
from tallystick_server.tokens.handlers.unit_of_work import UnitOfWork
from tallystick_server.tokens.handlers.verification import VerificationHandlers
from tallystick_server.tokens.leases import Leases
from tallystick_server.tokens.outbox import Outbox
from tallystick_server.tokens.prepared import import_prepared
from tallystick_server.tokens.settings import Settings
from tallystick_server.tokens.statistics import Inventory
from tallystick_server.tokens.store import schema
from tallystick_server.tokens.store.leases import LeaseRows
from tallystick_server.tokens.store.limits import Limits
from tallystick_server.tokens.store.queries import Store
from tallystick_server.tokens.store.sessions import Sessions

log = logging.getLogger(__name__)


async def run(settings: Settings, stop: Shutdown) -> None:
    """Raises:
    Unavailable: NATS or PostgreSQL did not come within ``settings.startup_timeout_s``.
    NotARecord: the prepared token is not a valid record.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            postgres.pool(settings.database_url, schema=schema.SCHEMA, wait_s=settings.startup_timeout_s)
        )

        async def migrate() -> None:
            async with pool.acquire() as connection:
                await schema.bring_up_to_date(connection)

        await postgres.patiently(migrate, wait_s=settings.startup_timeout_s)
        tokens = Store(pool)
        if prepared := settings.prepared_token:
            await postgres.patiently(
                lambda: import_prepared(tokens, prepared), wait_s=settings.startup_timeout_s
            )

        client = await stack.enter_async_context(
            bus.connect(
                settings.nats_url,
                "tokens",
                stop.unavailable,
                wait_s=settings.startup_timeout_s,
                authority=settings.nats_ca,
            )
        )
        producer = await stack.enter_async_context(events.producer(client, "tokens"))
        leases = Leases(LeaseRows(pool), client, settings.cache_lease_s)
        await leases.listen()
        await stack.enter_async_context(background(leases.watch(), stop))
        limits = Limits(pool, client, leases.count)
        await stack.enter_async_context(background(limits.clean_up(), stop))
        outbox = Outbox(pool, client)
        await stack.enter_async_context(background(outbox.deliver(), stop))
        await stack.enter_async_context(background(Inventory(pool, producer.recorder).keep(), stop))
        await stack.enter_async_context(producer.thread("tokens", settings.thread))
        policy = Policy(settings.self_rotation_max_grace_s, settings.max_tokens_per_creator)
        unit = UnitOfWork(tokens, leases, outbox.filled, producer.recorder)
        token_handlers = TokenHandlers(unit, policy)
        await stack.enter_async_context(
            serve(
                client,
                "tallystick-tokens",
                "checks access tokens and manages them",
                {
                    **VerificationHandlers(tokens, limits).all(),
                    **LeaseHandlers(leases).all(),
                    **token_handlers.all(),
                    **AccountHandlers(unit).all(),
                    **ImportHandlers(unit).all(),
                    **SessionHandlers(Sessions(pool), tokens, limits).all(),
                },
                unavailable=postgres.UNAVAILABLE,
                malformed=postgres.MALFORMED,
                inquire=token_handlers.account_faults,
                clocks_s=settings.max_clock_skew_s,
            )
        )
        if settings.heartbeat_file:
            await stack.enter_async_context(background(touch_heartbeat_file(settings.heartbeat_file), stop))
        log.info("ready")
        await stop.wait()
