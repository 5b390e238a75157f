"""Restarts NATS when its event stream stores no events.

After a failed write, for example on a full disk, NATS rejects every event until it is restarted, even when there is
room again.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.contracts.metrics import COUNTING, AskCounting
from tallystick.contracts.operation import Failure
from tallystick.rpc.call import call
from tallystick_server.local.stack import Part
from tallystick_server.runtime.lifecycle import Shutdown, background

log = logging.getLogger(__name__)

POLL_S = 2.0
PAUSE_S = 30.0
"""Time between two restarts."""
MIN_FREE_BYTES = 8 << 20
"""Minimum free space on the disk for a restart: with less, NATS might not start."""


@asynccontextmanager
async def watching(url: str, store: Path, server: Part, stop: Shutdown) -> AsyncIterator[None]:
    """Watches for as long as the block runs.

    Args:
        url: NATS, as the operator.
        store: the folder of NATS.
        server: NATS, which is started again when it ends.
        stop: see `bus.connect`.
    """
    async with (
        bus.connect(url, "operator", stop.unavailable) as client,
        background(_watch(client, store, server), stop),
    ):
        yield


async def _watch(client: Client, store: Path, server: Part) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        reply = await call(client, COUNTING, AskCounting())
        if isinstance(reply, Failure) or reply.stream != "failing":
            continue
        if shutil.disk_usage(store).free < MIN_FREE_BYTES:
            log.error("the event stream stores nothing: the disk of %s is full", store)
        else:
            log.error("the event stream stores nothing; restarting NATS")
            with suppress(ProcessLookupError):
                server.process.terminate()
        await asyncio.sleep(PAUSE_S)
