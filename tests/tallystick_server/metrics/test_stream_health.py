"""A stream that stores nothing is detected."""

import asyncio
import resource
from pathlib import Path

import pytest

from tallystick.contracts.events import EVENTS_STREAM
from tallystick.contracts.metrics import COUNTING, AskCounting, Counting
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tests.support.counting import connected, counted, send, service
from tests.support.servers import Nats, start_nats

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
FULL_DISK = (1, resource.RLIM_INFINITY)
"""The maximum size of files that a process may write: beyond it, a write fails as on a full disk."""


@pytest.fixture(autouse=True)
def frequent_heartbeats(monkeypatch):
    monkeypatch.setattr("tallystick.producer.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("tallystick.producer.FAILING_S", 0.5)


async def until_health(operator, expected: str) -> None:
    async with asyncio.timeout(20):
        while True:
            reply = await call(operator, COUNTING, AskCounting())
            if isinstance(reply, Counting) and reply.stream == expected:
                return
            await asyncio.sleep(0.05)


async def test_a_failed_write_is_reported_until_nats_restarts(database, tmp_path: Path):
    folder = tmp_path / "nats"
    async with (
        start_nats(folder) as urls,
        connected(urls) as (stream, operator),
        service(database, urls, operator),
    ):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1, catalogue.STREAM_WRITABLE.name: 1})
        pid = server(folder)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, FULL_DISK)
        await until_health(operator, "failing")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, UNLIMITED)
        # Writes would succeed again, but NATS still rejects them.
        await counted(operator, {catalogue.STREAM_WRITABLE.name: 0, "tallystick_accounts_added_total": 1})
    async with (
        start_nats(folder) as urls,
        connected(urls) as (stream, operator),
        service(database, urls, operator),
    ):
        await send(stream, "account.added", 2, account="x")
        await counted(
            operator,
            {
                catalogue.STREAM_WRITABLE.name: 1,
                "tallystick_accounts_added_total": 2,
                catalogue.COUNTING_REFUSED.name: 0,
            },
        )


def server(folder: Path) -> int:
    """The process id of the NATS server that uses this folder."""
    (pid,) = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and str(folder).encode() in _command(process)
    ]
    return pid


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.usefixtures("metrics_service")
async def test_a_full_stream_is_distinguished_from_a_failing_one(nats_server: Nats, stream, operator):
    await until_health(operator, "writable")
    config = (await stream.stream_info(EVENTS_STREAM)).config
    await stream.update_stream(config.evolve(max_bytes=1))
    await until_health(operator, "full")
    await counted(operator, {catalogue.STREAM_WRITABLE.name: 0})
    await stream.update_stream(config)
    await until_health(operator, "writable")
