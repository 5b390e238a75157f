"""Whether this edge can decide about tokens now, asked at most twice a second however often a stranger asks."""

import asyncio
import time

from nats.aio.client import Client

from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Failure
from tallystick.rpc.call import call
from tallystick_server.edge.http.errors import ProblemError

FRESH_S = 0.5


class Readiness:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._asked = 0.0
        self._ready = False

    async def check(self) -> None:
        """Raises:
        ProblemError: it cannot.
        """
        async with self._lock:
            if time.monotonic() - self._asked > FRESH_S:
                reply = await call(self._client, TOKENS_STATS, AskTokensStats())
                self._ready = not isinstance(reply, Failure)
                self._asked = time.monotonic()
        if not self._ready:
            raise ProblemError("unavailable")
