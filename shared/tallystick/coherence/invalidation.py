"""Keeps a cache coherent: applies changes, acknowledges them, and renews the lease without which it may not be used."""

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
    ChangeNotice,
    GetChanges,
    ReleaseLease,
    RenewLease,
)
from tallystick.tasks import cancel_and_wait
from tallystick.tokens.ids import new_id

log = logging.getLogger(__name__)

RETRY_S = 0.2
REORDERED_S = 0.01
"""How long a change may arrive after a later one, of another replica, before it counts as lost."""
DRIFT = 0.99
"""A lease ends here first, even if one of the two clocks is a little slow."""


class CacheInvalidation:
    def __init__(self, transport: Transport, cache: Cache, clock: Clock) -> None:
        self._transport = transport
        self._cache = cache
        self._clock = clock
        self._edge = new_id("edge_")
        self._gap = asyncio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keeps the cache coherent while the block runs. The lease is returned at the end, so that no revocation waits
        for it.
        """
        tasks = [asyncio.create_task(self._renew_leases()), asyncio.create_task(self._catch_up())]
        try:
            yield
        finally:
            for task in tasks:
                await cancel_and_wait(task)
            self._cache.end_lease()
            await self._transport.call(RELEASE_LEASE, ReleaseLease(edge=self._edge))

    async def _renew_leases(self) -> None:
        while not self._transport.is_connected:
            await asyncio.sleep(RETRY_S)
        # Before the first lease is requested, on the same connection, so that every later change arrives.
        await self._transport.subscribe(CHANGED, ChangeNotice, self._receive)
        while True:
            await asyncio.sleep(await self._renew())

    async def _renew(self) -> float:
        """Takes or renews the lease. Returns the seconds until it has to be renewed again."""
        requested_at, applied_seq = self._clock(), self._cache.applied_seq
        lease = await self._transport.call(RENEW_LEASE, RenewLease(edge=self._edge, seq=applied_seq))
        if isinstance(lease, Failure):
            return RETRY_S
        if applied_seq is not None and lease.seq < applied_seq:
            self._restart()
            return 0
        if applied_seq is None:
            self._cache.restart(lease.seq)
        self._cache.apply_changes((), lease.seq)
        if self._is_behind():
            await self._fetch()
        if not self._cache.renew_lease(lease.seq, requested_at + lease.seconds * DRIFT):
            self._cache.restart(lease.seq)
            self._cache.renew_lease(lease.seq, requested_at + lease.seconds * DRIFT)
        await self._acknowledge()
        return lease.seconds / 3

    async def _receive(self, notice: ChangeNotice) -> None:
        self._cache.apply_changes(notice.changes, notice.seq)
        if self._is_behind():
            self._gap.set()
        else:
            await self._acknowledge()

    async def _catch_up(self) -> None:
        """Fetches what was missed."""
        while True:
            await self._gap.wait()
            self._gap.clear()
            await asyncio.sleep(REORDERED_S)
            if self._is_behind():
                await self._fetch()
            await self._acknowledge()

    async def _fetch(self) -> None:
        applied_seq = self._cache.applied_seq
        if applied_seq is None:
            return
        missed = await self._transport.call(GET_CHANGES, GetChanges(after=applied_seq))
        if isinstance(missed, Failure):
            return  # nothing is acknowledged, so a revocation waits for the end of the lease
        if missed.changes:
            self._cache.apply_changes(missed.changes, missed.seq)
        elif (self._cache.applied_seq or 0) < missed.seq:
            self._cache.restart(missed.seq)
        else:
            self._cache.latest_seq = max(self._cache.applied_seq or 0, missed.seq)

    async def _acknowledge(self) -> None:
        if self._cache.applied_seq is None:
            return
        await self._transport.publish(
            ACKNOWLEDGED, Acknowledged(edge=self._edge, seq=self._cache.applied_seq)
        )

    def _is_behind(self) -> bool:
        return self._cache.applied_seq is not None and self._cache.applied_seq < self._cache.latest_seq

    def _restart(self) -> None:
        """PostgreSQL was restored to an earlier state: the numbers acknowledged so far mean other changes now."""
        log.warning("the change numbers went backwards; the cache restarts")
        self._cache.end_lease()
        self._edge = new_id("edge_")
