"""A service waits for a PostgreSQL that accepts connections and does not answer in time yet."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tallystick.contracts.metrics import EXPOSITION, TOKENS_STATS, AskExposition, AskTokensStats
from tallystick_server.metrics import app as metrics_app
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app as tokens_app
from tallystick_server.tokens.settings import Settings
from tests.support.polling import until_async
from tests.support.services import metrics_settings, running


@pytest.mark.parametrize("name", ["tokens", "metrics"])
@pytest.mark.usefixtures("event_stream")
async def test_it_starts_once_the_first_query_is_answered(name, database, nats_server, operator, caplog):
    connection = await asyncpg.connect(database.owner)
    stop = Shutdown()
    if name == "tokens":
        settings = Settings(nats_url=nats_server.tokens, database_url=database.tokens, startup_timeout_s=10)
        service = running(tokens_app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats())
    else:
        app = metrics_app.run(metrics_settings(database, nats_server), stop)
        service = running(app, stop, operator, EXPOSITION, AskExposition())
    async with AsyncExitStack() as stack:
        async with connection.transaction():
            await connection.execute(f"lock table {name}.migration")
            start = asyncio.create_task(stack.enter_async_context(service))
            await until_async(lambda: "waiting for PostgreSQL: TimeoutError" in caplog.text)
        await start
    await connection.close()
