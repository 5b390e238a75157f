"""Keeps the cache true: follows the changes, acknowledges them, and holds the lease without which nothing in it may
be relied on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallystick.coherence.cache import Cache
from tallystick.coherence.clock import Clock
from tallystick.coherence.transport import Transport
from tallystick.contracts.operation import Failure
from tallystick.contracts.propagation import (
    ACKNOWLEDGED,
    CHANGED,
    GET_CHANGES,
    RELEASE_LEASE,
    RENEW_LEASE,
    Acknowledged,
    Changes,
    GetChanges,
    ReleaseLease,
    RenewLease,
)
from tallystick.tasks import ended_by_cancelling
from tallystick.tokens.ids import new_id

log = logging.getLogger(__name__)

RETRY_S = 0.2
REORDERED_S = 0.01
"""How long a change may come after a later one, of another replica, before it counts as lost."""
DRIFT = 0.99
"""Two clocks count the same seconds; should one be a little slow, a lease still ends here first."""


class CacheInvalidation:
    def __init__(self, transport: Transport, cache: Cache, clock: Clock) -> None:
        self._transport = transport
        self._cache = cache
        self._clock = clock
        self._edge = new_id("edge_")
        self._behind = asyncio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keeps the cache coherent while the block runs. The lease is returned at the end, so that no revocation waits
        for it.
        """
        tasks = [asyncio.create_task(self._keep_lease()), asyncio.create_task(self._keep_up())]
        try:
            yield
        finally:
            for task in tasks:
                await ended_by_cancelling(task)
            self._cache.end_lease()
            await self._transport.call(RELEASE_LEASE, ReleaseLease(edge=self._edge))

    async def _keep_lease(self) -> None:
        while not self._transport.is_connected:
            await asyncio.sleep(RETRY_S)
        # Before the first lease is asked for, on the same connection: what is committed after it reaches us.
        await self._transport.subscribe(CHANGED, Changes, self._hear)
        while True:
            await asyncio.sleep(await self._renew())

    async def _renew(self) -> float:
        """Takes or renews the lease, and answers after how many seconds to do so again."""
        asked, followed = self._clock(), self._cache.followed
        lease = await self._transport.call(RENEW_LEASE, RenewLease(edge=self._edge, seq=followed))
        if isinstance(lease, Failure):
            return RETRY_S
        if followed is not None and lease.seq < followed:
            self._begin_anew()
            return 0
        if followed is None:
            self._cache.forget_all(lease.seq)
        self._cache.follow((), lease.seq)
        if self._lags():
            await self._fetch()
        if not self._cache.lease(lease.seq, asked + lease.seconds * DRIFT):
            self._cache.forget_all(lease.seq)
            self._cache.lease(lease.seq, asked + lease.seconds * DRIFT)
        await self._acknowledge()
        return lease.seconds / 3

    async def _hear(self, notice: Changes) -> None:
        self._cache.follow(notice.changes, notice.seq)
        if self._lags():
            self._behind.set()
        else:
            await self._acknowledge()

    async def _keep_up(self) -> None:
        """Fetches what was missed."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            await asyncio.sleep(REORDERED_S)
            if self._lags():
                await self._fetch()
            await self._acknowledge()

    async def _fetch(self) -> None:
        followed = self._cache.followed
        if followed is None:
            return
        missed = await self._transport.call(GET_CHANGES, GetChanges(after=followed))
        if isinstance(missed, Failure):
            return  # nothing is acknowledged, so whoever waits for that waits for the lease's end
        if missed.changes:
            self._cache.follow(missed.changes, missed.seq)
        elif (self._cache.followed or 0) < missed.seq:
            self._cache.forget_all(missed.seq)
        else:
            self._cache.heard = max(self._cache.followed or 0, missed.seq)

    async def _acknowledge(self) -> None:
        if self._cache.followed is None:
            return
        await self._transport.publish(ACKNOWLEDGED, Acknowledged(edge=self._edge, seq=self._cache.followed))

    def _lags(self) -> bool:
        return self._cache.followed is not None and self._cache.followed < self._cache.heard

    def _begin_anew(self) -> None:
        """PostgreSQL went back to an earlier state: what we acknowledged means something else now."""
        log.warning("the changes began anew; so does this edge")
        self._cache.end_lease()
        self._edge = new_id("edge_")
