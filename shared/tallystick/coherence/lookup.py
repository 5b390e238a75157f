"""Looks tokens up: in the cache while its lease lasts, otherwise at the tokens service."""

import asyncio

from tallystick.coherence.cache import Cache, CacheEntry, Key
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

    async def resolve(self, value: str) -> CacheEntry:
        """Looks up a token by its value.

        Raises:
            AuthError: the value is malformed.
            Unavailable: the tokens service did not answer.
        """
        digest_hex = digest(value)
        if digest_hex is None:
            raise AuthError("invalid_token")
        token = await self._cached(bytes.fromhex(digest_hex))
        if token is None:
            raise Unavailable("the tokens service did not answer")
        return token

    async def _cached(self, key: Key) -> CacheEntry | None:
        now = self._clock()
        known = self._cache.get(key, now) or self._cache.negative(key, now)
        if known is not None:
            return known
        if pending := self._cache.pending(key, now):
            shared_result: asyncio.Future[CacheEntry | None] = asyncio.get_running_loop().create_future()
            pending.joined.append(shared_result)
            return await shared_result
        if self._running >= MAX_LOOKUPS:
            raise Overloaded(f"{MAX_LOOKUPS} lookups wait for the tokens service")
        return await self._ask(key, now)

    async def _ask(self, key: Key, now: float) -> CacheEntry | None:
        pending = self._cache.start(key, now)
        token = None
        self._running += 1
        try:
            verdict = await self._transport.call_hedged(VERIFY, VerifyToken(digest=key.hex()))
            token = self._cache.complete(pending, None if isinstance(verdict, Failure) else verdict)
        finally:
            self._running -= 1
            self._recorder.observe(catalogue.VERIFY_SECONDS, self._clock() - now)
            if token is None:
                self._cache.complete(pending, None)
            for future in pending.joined:
                if not future.done():
                    future.set_result(token)
        return token
