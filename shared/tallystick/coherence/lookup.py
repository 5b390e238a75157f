"""Looks tokens up: in the cache while it may be relied on, else by asking the tokens service."""

import asyncio

from tallystick.coherence.cache import Cache, Key, Known
from tallystick.coherence.clock import Clock
from tallystick.coherence.transport import Transport
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.errors import AuthError, Overloaded, Unavailable
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.tokens.format import digest

MAX_LOOKUPS = 256
"""Maximum number of pending lookups, so that a flood of unknown tokens does not queue up at the tokens service."""


class TokenLookup:
    def __init__(self, transport: Transport, cache: Cache, recorder: MetricsRecorder, clock: Clock) -> None:
        self._transport = transport
        self._cache = cache
        self._recorder = recorder
        self._clock = clock
        self._running = 0

    async def resolve(self, value: str) -> Known:
        """Finds the token that a value stands for.

        Raises:
            AuthError: the value is malformed.
            Unavailable: this cannot be decided now.
        """
        of_token = digest(value)
        if of_token is None:
            raise AuthError("invalid_token")
        known = await self._known(bytes.fromhex(of_token))
        if known is None:
            raise Unavailable("the tokens service did not answer")
        return known

    async def _known(self, of_token: Key) -> Known | None:
        moment = self._clock()
        known = self._cache.get(of_token, moment) or self._cache.negative(of_token, moment)
        if known is not None:
            return known
        if pending := self._cache.pending(of_token, moment):
            joined: asyncio.Future[Known | None] = asyncio.get_running_loop().create_future()
            pending.joined.append(joined)
            return await joined
        if self._running >= MAX_LOOKUPS:
            raise Overloaded(f"{MAX_LOOKUPS} lookups wait for the tokens service")
        return await self._ask(of_token, moment)

    async def _ask(self, of_token: Key, moment: float) -> Known | None:
        pending = self._cache.start(of_token, moment)
        found = None
        self._running += 1
        try:
            verdict = await self._transport.call_hedged(VERIFY, VerifyToken(digest=of_token.hex()))
            found = self._cache.complete(pending, None if isinstance(verdict, Failure) else verdict)
        finally:
            self._running -= 1
            self._recorder.observe(catalogue.VERIFY_SECONDS, self._clock() - moment)
            if found is None:
                self._cache.complete(pending, None)
            for joined in pending.joined:
                if not joined.done():
                    joined.set_result(found)
        return found
