"""The readiness check: whether this edge can authenticate tokens now. The result is reused for half a second, so that
frequent checks cause no load.
"""

import asyncio
import time

from nats.aio.client import Client

from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Failure
from tallystick.rpc.call import call
from tallystick_server.edge.http.errors import ProblemError

FRESH_S = 0.5


class Readiness:
    """Whether the tokens service replies."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._asked = 0.0
        self._ready = False

    async def check(self) -> None:
        """Raises:
        ProblemError: the edge is not ready.
        """
        async with self._lock:
            if time.monotonic() - self._asked > FRESH_S:
                reply = await call(self._client, TOKENS_STATS, AskTokensStats())
                self._ready = not isinstance(reply, Failure)
                self._asked = time.monotonic()
        if not self._ready:
            raise ProblemError("unavailable")
