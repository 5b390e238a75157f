"""Tells which token a value is and whether it is honoured: from the cache where that may be relied on, else
by asking the tokens service.
"""

import asyncio

from tallystick.coherence.cache import Cache, Key, Known
from tallystick.coherence.invalidation import now
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.errors import Refused
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import Measures
from tallystick.rpc.hedged import Hedged
from tallystick.tokens.format import digest

MAX_ASKING = 256
"""Questions under way at once. A flood of well-formed tokens that nobody knows waits no longer than this many."""


class Checker:
    def __init__(self, tokens: Hedged, cache: Cache, measures: Measures) -> None:
        self._tokens = tokens
        self._cache = cache
        self._measures = measures
        self._asking = 0

    async def check(self, value: str) -> Known:
        """What there is to know about a token.

        Raises:
            Refused: it is malformed, or this cannot be told now.
        """
        of_token = digest(value)
        if of_token is None:
            raise Refused("invalid_token")
        known = await self._known(bytes.fromhex(of_token))
        if known is None:
            raise Refused("unavailable")
        return known

    async def _known(self, of_token: Key) -> Known | None:
        moment = now()
        known = self._cache.get(of_token, moment) or self._cache.refused(of_token, moment)
        if known is not None:
            return known
        if flight := self._cache.flight(of_token, moment):
            joined: asyncio.Future[Known | None] = asyncio.get_running_loop().create_future()
            flight.joined.append(joined)
            return await joined
        if self._asking >= MAX_ASKING:
            raise Refused("overloaded")
        return await self._ask(of_token, moment)

    async def _ask(self, of_token: Key, moment: float) -> Known | None:
        flight = self._cache.begin(of_token, moment)
        found = None
        self._asking += 1
        try:
            verdict = await self._tokens.call(VERIFY, VerifyToken(digest=of_token.hex()))
            found = self._cache.land(flight, None if isinstance(verdict, Failure) else verdict)
        finally:
            self._asking -= 1
            self._measures.observe(catalogue.VERIFY_SECONDS, now() - moment)
            if found is None:
                self._cache.land(flight, None)
            for joined in flight.joined:
                if not joined.done():
                    joined.set_result(found)
        return found
