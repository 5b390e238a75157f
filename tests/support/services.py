"""The services themselves, each running in the test's own loop against the test's own servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from copy import copy
from typing import Any

import httpx
import pytest
from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.contracts import registry
from tallystick.contracts.metrics import EXPOSITION, TOKENS_STATS, AskExposition, AskTokensStats
from tallystick.contracts.operation import Failure, Operation
from tallystick.contracts.records import NewToken, Token
from tallystick.rpc import hedged
from tallystick.rpc.call import call
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.local.stack import create_token
from tallystick_server.metrics import app as metrics_app
from tallystick_server.metrics.consumer import ensure_stream
from tallystick_server.metrics.settings import Settings as MetricsSettings
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app as tokens_app
from tallystick_server.tokens.settings import Settings as TokensSettings
from tests.support.servers import Database, Nats


def patient(operation: Operation) -> Operation:
    """The same operation with a caller who waits longer, where an answer takes a busy machine more than its timeout."""
    operation = copy(operation)
    operation.timeout_s = 30
    return operation


@pytest.fixture
def sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has requests sent once and waited for: on a busy machine, one that is sent twice takes a quota twice, where tests
    count exactly.
    """
    monkeypatch.setattr(hedged, "HEDGE_S", 5.0)
    for operation in registry.declared():
        monkeypatch.setattr(operation, "timeout_s", max(operation.timeout_s, 5.0))


@asynccontextmanager
async def running(
    service: Awaitable[None], stop: Shutdown, client: Client, operation: Operation, question
) -> AsyncIterator[None]:
    """Runs a service around the block, from the moment it answers."""
    task = asyncio.ensure_future(service)
    async with asyncio.timeout(30):
        while isinstance(await call(client, operation, question), Failure):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
    try:
        yield
    finally:
        stop()
        await task


@pytest.fixture
async def event_stream(nats_server: Nats) -> None:
    """The stream that the metrics service makes, for tests in which it does not run."""
    async with bus.connect(nats_server.events, "events", wait_s=10) as client:
        await ensure_stream(client, max_bytes=64 << 20)


@pytest.fixture
async def tokens_service(
    database: Database, nats_server: Nats, operator: Client, event_stream: None
) -> AsyncIterator[None]:
    settings = TokensSettings(nats_url=nats_server.tokens, database_url=database.tokens, startup_timeout_s=10)
    stop = Shutdown()
    async with running(tokens_app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats()):
        yield


def metrics_settings(database: Database, nats_server: Nats) -> MetricsSettings:
    return MetricsSettings(
        nats_url=nats_server.metrics,
        events_nats_url=nats_server.events,
        database_url=database.metrics,
        startup_timeout_s=10,
        stream_max_bytes=64 << 20,
    )


@pytest.fixture
async def metrics_service(database: Database, nats_server: Nats, operator: Client) -> AsyncIterator[None]:
    settings = metrics_settings(database, nats_server)
    stop = Shutdown()
    async with running(metrics_app.run(settings, stop), stop, operator, EXPOSITION, AskExposition()):
        yield


@pytest.fixture
async def edge(nats_server: Nats, event_stream: None) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of an edge in this loop; the other services run only where the test asks for them."""
    app: Any = create_app(EdgeSettings(nats_url=nats_server.edge))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        yield client


@asynccontextmanager
async def lifespan(app) -> AsyncIterator[None]:
    """Starts and stops an ASGI application, in one task as the servers do."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app.get, from_app.put)
    )
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task


async def issue(operator: Client, *scopes: str, **fields) -> tuple[str, Token]:
    """A new token: its secret and its record."""
    async with asyncio.timeout(30):
        created = await create_token(operator, NewToken(scopes=scopes or ("*",), **fields), by="test")
    assert not isinstance(created, Failure), created
    secret, token = created
    return secret.value, token
