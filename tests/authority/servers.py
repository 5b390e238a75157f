"""A tokens service and an edge in this event loop, on servers that the caller provides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tallystick import connection as bus
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.metrics.consumer import ensure_stream
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app as tokens_app
from tallystick_server.tokens.settings import Settings as TokensSettings
from tests.authority.driver import System
from tests.authority.model import MAX_TOKENS_PER_CREATOR
from tests.support.servers import Nats
from tests.support.services import lifespan, running


@asynccontextmanager
async def serve(database_url: str, nats: Nats) -> AsyncIterator[System]:
    """Args:
    database_url: a migrated database, as its owner.
    nats: a NATS server, with the URL of each user.
    """
    async with bus.connect(nats.events, "events", wait_s=10) as client:
        await ensure_stream(client, max_bytes=64 << 20)
    settings = TokensSettings(
        nats_url=nats.tokens,
        database_url=database_url,
        startup_timeout_s=10,
        max_tokens_per_creator=MAX_TOKENS_PER_CREATOR,
    )
    stop = Shutdown()
    app: Any = create_app(EdgeSettings(nats_url=nats.edge))
    async with (
        bus.connect(nats.operator, "operator", wait_s=10) as operator,
        running(tokens_app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats()),
        lifespan(app),
        bus.connect(nats.edge, "edge", wait_s=10) as edge,
        asyncpg.create_pool(database_url, min_size=1, max_size=8) as database,
    ):
        yield System(app, edge, operator, database)
