"""Events that are published by hand, and what the metrics service has counted of them."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tallystick import connection as bus
from tallystick.contracts import publishers
from tallystick.contracts.metrics import EXPOSITION, AskExposition, Exposition
from tallystick.contracts.operation import Failure
from tallystick.rpc.call import call
from tallystick_server.metrics import app
from tallystick_server.runtime.lifecycle import Shutdown
from tests.support.servers import Nats
from tests.support.services import metrics_settings, running


@pytest.fixture
async def stream(nats_server):
    """JetStream with every right."""
    async with bus.connect(nats_server.jetstream, "jetstream", wait_s=10) as client:
        yield client.jetstream()


async def send(stream, kind: str, n: int | None = None, source: str = "", **data) -> None:
    """Publishes as the service that the source belongs to; without one, as a service that may."""
    source = source or next(
        name for name in ("edge", "tokens", "mailer") if publishers.may_publish(name, kind)
    )
    event: dict = {"data": data}
    if n is not None:
        event |= {"source": source, "boot": "b1", "n": n, "type": kind}
    await stream.publish(publishers.subject(source, kind), msgspec.json.encode(event))


async def counters(operator) -> dict[str, float]:
    deadline = asyncio.get_running_loop().time() + 15
    reply = await call(operator, EXPOSITION, AskExposition())
    while isinstance(reply, Failure) and asyncio.get_running_loop().time() < deadline:
        reply = await call(operator, EXPOSITION, AskExposition())
    assert isinstance(reply, Exposition), reply
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


async def counted(operator, expected: dict[str, float]) -> None:
    deadline = asyncio.get_running_loop().time() + 15
    actual = await counters(operator)
    pause_s = 0.02
    while not expected.items() <= actual.items() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)  # looking costs the service as much as counting does
        actual = await counters(operator)
    assert expected.items() <= actual.items()


@asynccontextmanager
async def service(database, nats_server, operator):
    settings = metrics_settings(database, nats_server)
    stop = Shutdown()
    async with running(app.run(settings, stop), stop, operator, EXPOSITION, AskExposition()):
        yield stop


async def until_counted(operator, name: str, least: float) -> None:
    async with asyncio.timeout(15):
        while (await counters(operator)).get(name, 0) < least:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def connected(urls: Nats):
    async with (
        bus.connect(urls.jetstream, "jetstream", wait_s=10) as client,
        bus.connect(urls.operator, "operator", wait_s=10) as operator,
    ):
        yield client.jetstream(), operator
