"""One metrics service counts and another is its standby, which takes over however the first one fails."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from nats.js import JetStreamContext

from tallystick import connection as bus
from tallystick_server.metrics.consumer import LEASE_S
from tallystick_server.metrics.pull_consumer import LINGER_S
from tests.support.paths import ROOT
from tests.support.polling import until, until_async
from tests.support.servers import Database, Nats
from tests.support.up import environment


@contextmanager
def serve_metrics(output: Path, nats_server: Nats, database: Database) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tallystick_server", "serve", "metrics"],
            cwd=ROOT,
            env=environment(
                nats_url=nats_server.metrics,
                events_nats_url=nats_server.events,
                database_url=database.metrics,
            ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(5)


async def send(stream: JetStreamContext, account: str) -> None:
    await stream.publish(
        "tallystick.events.tokens.account.added", b'{"data": {"account": "%s"}}' % account.encode()
    )


async def until_counted(connection: asyncpg.Connection, number: int) -> float:
    """Seconds until this number of accounts was counted; more must never be counted."""
    start = time.monotonic()
    async with asyncio.timeout(20):
        while True:
            count = await connection.fetchval(
                "select value from metrics.counter where name = 'tallystick_accounts_added_total'"
            )
            if count == number:
                return time.monotonic() - start
            assert (count or 0) < number
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
async def test_the_standby_takes_over_within_seconds(
    number: signal.Signals, folder: Path, nats_server: Nats, database: Database
):
    connection = await asyncpg.connect(database.owner)
    first, second = folder / "first", folder / "second"
    with serve_metrics(first, nats_server, database) as owner:
        await until_async(lambda: "counting" in first.read_text(), 20)
        with serve_metrics(second, nats_server, database):
            await until_async(lambda: "standing by" in second.read_text(), 20)
            async with bus.connect(nats_server.jetstream, "jetstream", wait_s=10) as client:
                stream = client.jetstream()
                await send(stream, "one")
                await until_counted(connection, 1)
                owner.send_signal(number)
                await send(stream, "two")
                delay_s = await until_counted(connection, 2)
                print(f"{number.name}: the standby counts after {delay_s:.1f} s")
                assert delay_s < LEASE_S + LINGER_S + 2
                # A service that was only suspended is no longer the owner, and counts nothing twice.
                owner.send_signal(signal.SIGCONT)
                for account in range(20):
                    await send(stream, str(account))
                await until_counted(connection, 22)
                if number == signal.SIGSTOP:
                    # It may count again only if the other one has released its lease.
                    try:
                        await until_async(
                            lambda: (
                                "another metrics service counts" in first.read_text()
                                or "not counting for now" in second.read_text()
                            ),
                            20,
                        )
                    finally:
                        print(first.read_text(), second.read_text())
                await send(stream, "last")
                await until_counted(connection, 23)
    await connection.close()


def test_an_owner_that_stops_releases_its_lease(folder: Path, nats_server: Nats, database: Database):
    output = folder / "output"
    for _ in range(2):
        with serve_metrics(output, nats_server, database) as process:
            until(lambda: "counting" in output.read_text(), 20)
            assert "standing by" not in output.read_text()
            process.terminate()
            assert process.wait(5) == 0
