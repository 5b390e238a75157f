"""Keeps child processes running: restarts one when it dies, with a growing delay if it keeps dying."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallystick.errors import Unavailable
from tallystick.tasks import cancel_and_wait
from tallystick_server.local.stack import Part, Start
from tallystick_server.runtime.lifecycle import EX_CONFIG, EX_DATAERR, EX_SOFTWARE, Shutdown

log = logging.getLogger(__name__)

BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Delay before a restart, by the number of deaths in a row."""
STOP_S = 3.0
"""How long a child may take to stop before it is killed."""
STEADY_S = 10.0
"""A child that ran this long is restarted without a longer delay."""


class Supervisor:
    """Args:
    stop: requested if a child cannot run: its settings are wrong, or it no longer starts.
    """

    def __init__(self, stop: Shutdown) -> None:
        self._stop = stop

    @asynccontextmanager
    async def child(self, name: str, start: Start) -> AsyncIterator[Part]:
        """Keeps a child running for as long as the block does."""
        part = Part(name, start, await start())
        watching = asyncio.create_task(self._watch(part))
        try:
            yield part
        finally:
            await cancel_and_wait(watching)
            await part.stop(timeout_s=STOP_S)

    async def _watch(self, part: Part) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            started = loop.time()
            code = await part.process.wait()
            if code in {EX_CONFIG, EX_DATAERR}:
                # Its settings are invalid, which it has logged; a restart would fail again.
                self._stop(exit_code=code)
                return
            if loop.time() - started > STEADY_S:
                deaths = 0
            log.warning("%s ended (%s); starting it again", part.name, code)
            await asyncio.sleep(BACK_OFF_S[min(deaths, len(BACK_OFF_S) - 1)])
            deaths += 1
            try:
                await part.start()
            except (OSError, Unavailable) as error:
                log.error("%s: %s", part.name, error)  # noqa: TRY400  # the next round tries again
                self._stop(exit_code=EX_SOFTWARE) if deaths > len(BACK_OFF_S) else None
