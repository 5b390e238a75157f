"""Verifies access tokens in this process: at memory speed, and in step with the tokens service."""

from binascii import a2b_hex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

from tallystick.coherence.cache import Cache, CachedToken, CacheEntry
from tallystick.coherence.clock import Clock, boot_time
from tallystick.coherence.invalidation import CacheInvalidation
from tallystick.coherence.lookup import TokenLookup
from tallystick.coherence.quotas import RateLimiter
from tallystick.coherence.transport import Transport
from tallystick.coherence.usage import Usage
from tallystick.contracts.quotas import Quota
from tallystick.contracts.records import Token
from tallystick.errors import AuthError
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.tokens.access import AccessRequest, check_access
from tallystick.tokens.format import HEX_LENGTH, OUR_LENGTH


class Verifier:
    """Authenticates and authorizes tokens.

    A request passes `authenticate`, `authorize` (or `check`, which uses up no rate limit), and then `usage`, which
    records the decision.

    Args:
        max_tokens: how many valid tokens are cached at most, and how many invalid ones.
        clock: the clock of leases and quotas.
    """

    lookup: TokenLookup
    limiter: RateLimiter

    def __init__(self, max_tokens: int, clock: Clock = boot_time) -> None:
        self.cache = Cache(max_tokens, max_tokens)
        self.usage = Usage()
        self.recorder = MetricsRecorder()
        self.clock = clock

    @asynccontextmanager
    async def run(self, transport: Transport) -> AsyncIterator[None]:
        """Holds a lease on the cache, follows changes, and answers recalls of quotas, for as long as the block runs.
        What is not reported yet is reported at its end.

        Args:
            transport: the connection to the tokens service. It need not be connected yet.
        """
        self.lookup = TokenLookup(transport, self.cache, self.recorder, self.clock)
        self.limiter = RateLimiter(transport, self.recorder, self.clock)
        try:
            async with self.limiter.run(), CacheInvalidation(transport, self.cache, self.clock).run():
                yield
        finally:
            await self.usage.flush(transport)

    def cached(self, token: bytes) -> CachedToken | None:
        """The token with this value, from the cache only: None if it is not cached as valid."""
        length = len(token)
        if length == OUR_LENGTH:
            key = sha256(token).digest()
        elif length == HEX_LENGTH:
            key = _digest_of_64(token)
        elif token[:4] == b"tly_":
            return None  # cut off, or with something behind it
        else:
            key = sha256(token).digest()
        return self.cache.get(key, self.clock())

    async def authenticate(self, value: str) -> CachedToken:
        """Looks up the valid token with this value.

        Raises:
            AuthError: the value is not a valid token; ``invalid_token``.
            Unavailable: this cannot be decided now.
        """
        return valid(await self.lookup.resolve(value))

    def check(self, token: Token, access: AccessRequest) -> None:
        """Checks scope, account, address and referrer.

        Raises:
            AuthError: the first of them that the token does not allow.
        """
        reason = check_access(token, access)
        if reason is not None:
            raise AuthError(
                reason,
                token_id=token.id,
                scope=access.scope if reason == "insufficient_scope" else None,
                address=access.address if reason == "address_not_allowed" else None,
            )

    async def authorize(self, token: Token, access: AccessRequest) -> Quota | None:
        """Checks what `check` does, and uses up one request of the token's rate limit.

        Returns:
            The state of the rate limit; None if the token has none.

        Raises:
            AuthError: the token does not allow the request, or its rate limit is used up.
            Unavailable: the tokens service does not answer.
        """
        self.check(token, access)
        if token.restrictions.rate_limit is None:
            return None
        quota = await self.limiter.spend(token)
        if quota is not None and not quota.granted:
            raise AuthError("rate_limited", token_id=token.id, quota=quota)
        return quota


def valid(cached: CacheEntry) -> CachedToken:
    """The token, if it is valid.

    Raises:
        AuthError: it is not; ``invalid_token``, and for the log why.
    """
    if isinstance(cached, CachedToken):
        return cached
    rejected = cached.refused
    if rejected is None:
        raise AuthError("invalid_token")
    raise AuthError("invalid_token", token_id=rejected.id, log_reason=rejected.log_reason)


def _digest_of_64(token: bytes) -> bytes:
    """The digest of 64 characters as `tallystick.tokens.format.digest` takes it."""
    try:
        return sha256(a2b_hex(token)).digest()
    except ValueError:
        return sha256(token).digest()
