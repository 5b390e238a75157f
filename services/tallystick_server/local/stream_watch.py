"""Restarts NATS when its event stream stores nothing any more.

After a failed write, as on a full disk, NATS refuses every event until it is restarted, also when there is room again.
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

LOOK_S = 2.0
PAUSE_S = 30.0
"""How long a restart may take to help before the next one."""
MIN_FREE_BYTES = 8 << 20
"""What must be free on the disk before a restart: without room, NATS might not start."""


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
        await asyncio.sleep(LOOK_S)
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
